import subprocess
import sys
from pathlib import Path

import torch


def trained(path: Path) -> list[torch.Tensor]:
    state = torch.load(path, weights_only=True)
    return state["tensors"] if "tensors" in state else list(state["model"].values())


def test_two_processes_find_what_one_does(tmp_path, evaluated):
    workers = [subprocess.Popen([sys.executable, evaluated.__file__, str(rank), str(tmp_path)]) for rank in range(2)]
    alone = evaluated.everything(0, 1, None, tmp_path / "alone")
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["extracted"], alone["extracted"])
        assert all(torch.equal(found["knn"][k], alone["knn"][k]) for k in (1, 5))
        assert {name: found[name] for name in ("probe", "linear", "semi")} == {
            name: alone[name] for name in ("probe", "linear", "semi")
        }
        told = (tmp_path / f"{rank}.txt").read_text()
        assert "another batch on 1 of 2 only" in told and "expected synchronized batch norms" in told
        assert told.endswith("x.jpg is broken")
    for name in ("linear.pt", "semi.pt"):
        for ours, expected in zip(trained(tmp_path / "shared" / name), trained(tmp_path / "alone" / name), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
