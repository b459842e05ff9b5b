import resource

import pytest
import torch

from sslzoo import build_optimizer, load_resume, save_resume

RECIPE = {"lr": 0.1, "crops": [0.2, 1.0], "augment": {"flip": 0.5}}


@pytest.fixture
def start(build):
    def start(name, seed):
        method = build(name, seed)
        return method, build_optimizer("sgd", method, lr=0.1, weight_decay=0.01)

    return start


def test_no_file_is_no_state(start, tmp_path):
    assert load_resume(tmp_path / "resume.pt", *start("simsiam", 0), RECIPE) is None


def test_another_recipe_is_refused_by_field(start, tmp_path):
    method, optimizer = start("simsiam", 0)
    save_resume(tmp_path / "resume.pt", step=1, method=method, optimizer=optimizer, recipe=RECIPE)
    other = {"lr": 0.2, "crops": (0.2, 1.0), "augment": {"flip": 0.5, "grey": 0.2}}
    with pytest.raises(ValueError, match=r"augment\.grey: \"\(absent\)\", 0\.2; lr: 0\.1, 0\.2$") as error:
        load_resume(tmp_path / "resume.pt", method, optimizer, other)
    assert "crops" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", ["cut", "flip", "text", "empty"])
def test_a_damaged_file_gives_one_clear_line(damage, start, tmp_path):
    method, optimizer = start("simsiam", 0)
    path = tmp_path / "resume.pt"
    save_resume(path, step=1, method=method, optimizer=optimizer, recipe=RECIPE)
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes({
        "cut": whole[:middle],
        "flip": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "text": b"hello",
        "empty": b"",
    }[damage])  # fmt: skip
    with pytest.raises(ValueError, match="not a whole resume file") as error:
        load_resume(path, method, optimizer, RECIPE)
    assert "\n" not in str(error.value)


def test_a_full_disk_leaves_the_old_file_whole(start, tmp_path):
    """The limit on file sizes stands for the full disk: writing stops in the middle."""
    method, optimizer = start("simsiam", 0)
    path = tmp_path / "resume.pt"
    save_resume(path, step=1, method=method, optimizer=optimizer, recipe=RECIPE)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(ValueError, match=r"cannot write .*resume\.pt") as error:
            save_resume(path, step=2, method=method, optimizer=optimizer, recipe=RECIPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["resume.pt"]


def test_the_count_of_shuffles_is_resumed(start, tmp_path):
    """The permutation across ranks follows from it."""
    method, optimizer = start("moco_v2", 0)
    method.shuffles = 5
    save_resume(tmp_path / "resume.pt", step=1, method=method, optimizer=optimizer, recipe=RECIPE)
    fresh, optimizer = start("moco_v2", 1)
    load_resume(tmp_path / "resume.pt", fresh, optimizer, RECIPE)
    assert fresh.shuffles == 5


@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_run_chooses_its_own_kernels(fused, start, build, tmp_path):
    method, optimizer = start("simsiam", 0)
    save_resume(tmp_path / "resume.pt", step=1, method=method, optimizer=optimizer, recipe=RECIPE)
    other = build_optimizer("sgd", method, lr=0.1, weight_decay=0.01, fused=fused)
    load_resume(tmp_path / "resume.pt", method, other, RECIPE)
    assert all(bool(group["fused"]) == fused for group in other.param_groups)


@pytest.mark.parametrize("step", ["1", 10**9, -1, 1.0, True, None])
def test_invalid_step_is_rejected(step, start, tmp_path):
    method, optimizer = start("simsiam", 0)
    path = tmp_path / "resume.pt"
    save_resume(path, step=1, method=method, optimizer=optimizer, recipe=RECIPE)
    torch.save({**torch.load(path, weights_only=True), "step": step}, path)
    with pytest.raises(ValueError, match=r"resume\.pt: expected a step of 0 to 100, got '[^\n]*; delete it"):
        load_resume(path, method, optimizer, RECIPE, last_step=100)


@pytest.mark.parametrize("part", ["method", "optimizer", "extra", "step"])
def test_invalid_content_is_rejected_in_one_line(part, start, tmp_path):
    method, optimizer = start("simsiam", 0)
    path = tmp_path / "resume.pt"
    save_resume(path, step=1, method=method, optimizer=optimizer, recipe=RECIPE)
    state = torch.load(path, weights_only=True)
    for other in ({}, {"a": torch.zeros(1)}, [1], "text") if part != "extra" else ([1], "text"):
        torch.save(state | {part: other}, path)
        with pytest.raises(ValueError, match=r"^[^\n]*resume\.pt[^\n]*delete it to start afresh$"):
            load_resume(path, method, optimizer, RECIPE)
