"""User-provided text files: UTF-8 lines, or an error that names the file."""

from pathlib import Path

import pytest

from ssl_eval import listed_subset
from ssl_eval.retrieval.safe_pickle import read_pickle
from ssl_eval.slides.slide_sets import slides_of_csv
from ssl_eval.text import read_names, read_text


def test_read_names_skips_empty_lines(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa/\xe4.png \r\n\n  b.png".encode())
    assert read_names(tmp_path / "list.txt") == ["a/\xe4.png", "b.png"]


@pytest.mark.parametrize(
    "read", [read_text, lambda path: listed_subset(path, []), lambda path: slides_of_csv(path, path)]
)
def test_non_utf8_files_are_rejected(read, tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("image_id,isup_grade\n\xe4,1\n".encode("latin1"))
    with pytest.raises(ValueError, match=r"^expected UTF-8 text in .*latin\.csv, got the byte 0xe4; save it as UTF-8$"):
        read(path)


def test_folders_are_rejected(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^cannot read .* .Is a directory.; give a text file$"):
        read_text(tmp_path)
    with pytest.raises(ValueError, match=r"cannot read the pickle .*IsADirectoryError"):
        read_pickle(tmp_path)
