"""Retrieval, copies and videos shared by two processes: this one and `python THIS_FILE FOLDER`."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("PIL", reason="genviews-ssl-eval[images] is not installed")
pytest.importorskip("scipy", reason="genviews-ssl-eval[images] is not installed")

from genviews_core.distributed import destroy_process_group
from ssl_eval import image_files
from ssl_eval.image_files import ReaderConfig, images_in
from ssl_eval.retrieval.copydays import evaluate_copydays, read_copydays
from ssl_eval.retrieval.revisited import evaluate_revisited, read_revisited
from ssl_eval.video.davis import evaluate_davis, read_davis
from ssl_eval.video.davis_metrics import davis_table
from ssl_eval.video.mask_propagation import Frames, PropagationConfig

sys.path.insert(0, str(Path(__file__).parent))
from drawn_layouts import SmallTransformer, draw_copydays, draw_davis, draw_revisited

FRAMES = Frames(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), short_side=64)


def everything(folder: Path, group: dist.ProcessGroup | None) -> dict:
    image_files.BLOCK = 29  # so that the last of 30 distractors comes alone: nothing is left for a second process
    network, preparing = SmallTransformer(), ReaderConfig(batch_size=4, group=group)
    distractors = images_in(folder / "copydays/distractors")
    copydays = read_copydays(folder / "copydays")
    further = {"distractors": distractors, "whitening": images_in(folder / "copydays/whitening")}
    revisited = evaluate_revisited(
        network, read_revisited(folder / "roxford5k"), preparing, size=48, distractors=distractors
    )
    names: list[str] = []
    followed = evaluate_davis(
        network, read_davis(folder / "DAVIS"), FRAMES, PropagationConfig(frames=2, radius=4), group=group,
        on_video=lambda name, objects: names.append(name),
    )  # fmt: skip
    told = ""
    broken = [replace(copydays[0], files=[*copydays[0].files[:-1], folder / "broken.jpg"])]
    try:
        evaluate_copydays(network, broken, preparing, size=32)
    except ValueError as error:
        told = str(error)
    return {
        "retrieval": {kind: score.mean_average_precision for kind, score in revisited.items()},
        "copies": evaluate_copydays(network, copydays, preparing, size=32, **further),
        "video": davis_table(followed),
        "told": told,
        "names": names,
    }


def joined(folder: Path, rank: int) -> dict:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        return everything(folder, dist.group.WORLD)
    finally:
        destroy_process_group()


def test_two_processes_find_what_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "BLOCK", image_files.BLOCK)
    draw_revisited(tmp_path / "roxford5k")
    draw_copydays(tmp_path / "copydays")
    draw_davis(tmp_path / "DAVIS")
    (tmp_path / "broken.jpg").write_text("no image")
    other = subprocess.Popen([sys.executable, __file__, str(tmp_path)])
    alone = everything(tmp_path, None)
    mine = joined(tmp_path, 0)
    assert other.wait(timeout=120) == 0
    theirs = torch.load(tmp_path / "other.pt", weights_only=True)
    assert len(alone["names"]) == 2 and (mine.pop("names"), theirs.pop("names")) == (["slide"], ["rise"])
    del alone["names"]
    assert mine == theirs and "broken.jpg': not an image" in mine["told"] == alone["told"]
    for kind in ("retrieval", "copies", "video"):
        assert mine[kind] == pytest.approx(alone[kind], abs=1e-6)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(joined(Path(sys.argv[1]), 1), Path(sys.argv[1]) / "other.pt")
