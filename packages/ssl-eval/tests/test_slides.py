"""Slides in the layouts of PANDA and of BRACS and BRIGHT; only names count here, so tiles are empty files."""

from pathlib import Path

import pytest
import torch

from ssl_eval.slides.slide_sets import check_all_labeled, slides_of_csv, slides_of_folders, tiles_of

HEADER = "image_id,data_provider,isup_grade,gleason_score\n"


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def panda(folder: Path, grades: str) -> Path:
    """A slide for each grade, named by its place."""
    lines = []
    for number, grade in enumerate(grades):
        put(folder / f"tiles/slide{number}/{number}_b.png")
        put(folder / f"tiles/slide{number}/{number}_a.jpg")
        lines.append(f"slide{number},{('karolinska', 'radboud')[number % 2]},{grade},3+{grade}\n")
    return put(folder / "train.csv", HEADER + "".join(lines))


def test_panda(tmp_path):
    table = panda(tmp_path, "0312240")
    found = slides_of_csv(table, tmp_path / "tiles")
    assert (
        found.classes == ("0", "1", "2", "3", "4") and found.graded and found.labels.tolist() == [0, 3, 1, 2, 2, 4, 0]
    )
    assert found.slides[1].name == "slide1" and found.slides[1].origin == "radboud"
    assert [tile.name for tile in tiles_of(found.slides[1].place)] == ["1_a.jpg", "1_b.png"]
    few = found.take(torch.tensor([1, 5]))
    assert few.labels.tolist() == [3, 4] and few.classes == found.classes
    scores = slides_of_csv(table, tmp_path / "tiles", column="gleason_score")
    assert scores.classes == ("3+0", "3+1", "3+2", "3+3", "3+4") and not scores.graded
    check_all_labeled(tmp_path / "tiles", found)
    put(tmp_path / "tiles/.cache/x.png")
    put(tmp_path / "tiles/readme.txt")
    check_all_labeled(tmp_path / "tiles", found)


def test_embeddings_in_place_of_tiles(tmp_path):
    put(tmp_path / "tiles/a.b.safetensors")
    put(tmp_path / "tiles/c/0.png")
    found = slides_of_csv(put(tmp_path / "train.csv", "image_id,isup_grade\na.b,0\nc,1\n"), tmp_path / "tiles")
    assert [slide.place.name for slide in found.slides] == ["a.b.safetensors", "c"]
    check_all_labeled(tmp_path / "tiles", found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image_id,grade\na,0\n", "a column isup_grade in .*, got image_id, grade"),
        (HEADER, "expected slides"),
        (HEADER + "slide0,x,,0+0\n", "isup_grade for slide slide0 in .*, got none"),
        (HEADER + "slide0,x,0,0+0\nslide0,x,1,3+3\n", "each slide once in .*, got slide0 twice"),
        (HEADER + "slide0,x,0,0+0\nslide1,x,2,3+4\n", "every isup_grade up to 2 in .*, got none of 1"),
        (
            HEADER + "slide0,x,0,0+0\ngone,x,1,3+3\nlost,x,1,3+3\n",
            r"slide gone of .*, got none \(2 such slides\)",
        ),
    ],
)
def test_mistakes_in_the_csv(tmp_path, text, told):
    panda(tmp_path, "01")
    with pytest.raises(ValueError, match=told) as error:
        slides_of_csv(put(tmp_path / "other.csv", text), tmp_path / "tiles")
    assert "\n" not in str(error.value)


def test_a_class_that_only_the_test_has_and_tiles_without_label(tmp_path):
    table = panda(tmp_path, "0123")
    with pytest.raises(ValueError, match=r"of the training slides for slide3 in .*, got 3"):
        slides_of_csv(table, tmp_path / "tiles", classes=["0", "1", "2"])
    known = slides_of_csv(put(tmp_path / "few.csv", HEADER + "slide0,x,0,\nslide1,x,1,\n"), tmp_path / "tiles")
    with pytest.raises(ValueError, match=r"a label of slide slide2 in .*, got none \(2 such slides\)"):
        check_all_labeled(tmp_path / "tiles", known)
    with pytest.raises(ValueError, match="expected a CSV of slides at"):
        slides_of_csv(tmp_path / "none.csv", tmp_path)


def test_class_folders_with_and_without_groups(tmp_path):
    for split in ("train", "test"):
        for group, subtype in (("Group_BT", "Type_PB"), ("Group_BT", "Type_UDH"), ("Group_MT", "Type_IC")):
            put(tmp_path / split / group / subtype / f"BRACS_{split}_{subtype}" / "0_0.png")
    put(tmp_path / "train/Group_MT/Type_IC/BRACS_2.safetensors")
    train = slides_of_folders(tmp_path, "train")
    assert train.classes == ("Type_IC", "Type_PB", "Type_UDH") and train.labels.tolist() == [1, 2, 0, 0]
    assert train.slides[2].name == "train/Group_MT/Type_IC/BRACS_2" and not train.graded
    groups = slides_of_folders(tmp_path, "test", level="group", classes=("Group_BT", "Group_MT"))
    assert groups.labels.tolist() == [0, 0, 1]
    flat = tmp_path / "flat/train/Cancerous/slide/0.png"
    put(flat)
    assert [slides_of_folders(tmp_path / "flat", "train", level=level).classes for level in ("group", "subtype")] == [
        ("Cancerous",),
        ("Cancerous",),
    ]


def test_mistakes_in_class_folders(tmp_path):
    put(tmp_path / "train/Cancerous/slide/0.png")
    with pytest.raises(ValueError, match=r"slides in ROOT/test/<class>/<slide>/<tile>, got no folder .*test"):
        slides_of_folders(tmp_path, "test")
    (tmp_path / "train/Benign").mkdir()
    with pytest.raises(ValueError, match=r"tiles or slides in .*Benign, got none"):
        slides_of_folders(tmp_path, "train")
    (tmp_path / "train/Benign").rmdir()
    put(tmp_path / "val/slide/0.png")
    with pytest.raises(ValueError, match="without a class folder"):
        slides_of_folders(tmp_path, "val")
    with pytest.raises(ValueError, match="a class of the training slides, got Cancerous"):
        slides_of_folders(tmp_path, "train", classes=("Benign",))
