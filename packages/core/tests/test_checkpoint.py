import zipfile
from pathlib import Path

import pytest
import torch

from genviews_core.checkpoint import load_checkpoint, restoring, save_checkpoint

SETTINGS = {"lr": 0.1, "crops": (0.2, 1.0), "augment": {"flip": 0.5}}


@pytest.fixture
def path(tmp_path):
    save_checkpoint(tmp_path / "a.pt", step=3, settings=SETTINGS, state={"weights": torch.ones(2), "scale": 2.0})
    return tmp_path / "a.pt"


def test_state_is_restored(path, tmp_path):
    step, state = load_checkpoint(path, SETTINGS, last_step=3)
    assert step == 3 and state["scale"] == 2.0 and torch.equal(state["weights"], torch.ones(2))
    assert load_checkpoint(tmp_path / "none.pt", SETTINGS) is None


def test_other_settings_are_rejected_with_the_differing_fields(path):
    other = {"lr": 0.2, "crops": [0.2, 1.0], "augment": {"flip": 0.5, "gray": 0.2}}
    expected = r"^[^\n]*belongs to another training; [^\n]*augment\.gray: \"\(absent\)\", 0\.2; lr: 0\.1, 0\.2$"
    with pytest.raises(ValueError, match=expected):
        load_checkpoint(path, other)


def test_named_settings_may_grow_and_nothing_else(path):
    _, state = load_checkpoint(path, SETTINGS | {"lr": 0.2}, may_grow=("lr",))
    assert state["settings"]["lr"] == 0.1
    for other in (SETTINGS | {"lr": 0.05}, SETTINGS | {"lr": 0.2, "crops": [0.3, 1.0]}):
        with pytest.raises(ValueError, match="belongs to another training"):
            load_checkpoint(path, other, may_grow=("lr",))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 4}, "expected a step of 0 to 3, got '4'; delete it"),
        ({"step": True}, "expected a step of 0 to 3, got 'True'; delete it"),
        ({"format": 2}, "not a whole resume file .another format than 1.; delete it"),
        ({"settings": [1]}, "not a whole resume file .its settings are not a dict.; delete it"),
    ],
)
def test_invalid_content_is_rejected(change, message, path):
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(ValueError, match=message):
        load_checkpoint(path, SETTINGS, last_step=3)


def test_errors_of_restoring_are_one_line(path):
    with (
        pytest.raises(ValueError, match=r"^[^\n]*a\.pt is not a whole resume file \(first\); delete it[^\n]*$"),
        restoring(path),
    ):
        raise RuntimeError("first\nsecond")


def test_files_written_before_settings_had_this_name_are_read(tmp_path):
    torch.save({"format": 1, "step": 2, "recipe": {"lr": 0.1}, "method": {}}, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt", {"lr": 0.1}) == (2, {"method": {}})


def _compressed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state/data/0", bytes(1 << 20))


def _overlapping(path: Path) -> None:
    """Write an archive with two entries for the same bytes, as uncompressed zip bombs have."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", bytes(1 << 20))
        archive.filelist.append(archive.filelist[0])


@pytest.mark.parametrize("make", [_compressed, _overlapping])
def test_a_file_that_unpacks_to_more_than_it_holds_is_rejected_unread(make, tmp_path, monkeypatch):
    make(tmp_path / "state")
    monkeypatch.setattr(zipfile.ZipFile, "open", None)  # nothing may be unpacked
    with pytest.raises(ValueError, match=r"state is not a whole resume file \(it unpacks to more than it"):
        load_checkpoint(tmp_path / "state", SETTINGS)
