"""Pickles hold data; what else they hold does not run."""

import os
import pickle

import numpy as np
import pytest

from ssl_eval.retrieval.safe_pickle import as_list, read_pickle


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_strings_and_arrays(tmp_path, protocol):
    held = {
        "names": ["a", "b"],
        "rows": np.arange(6),
        "swapped": np.arange(3, dtype=">i4"),
        "box": np.array([[1.5, 2], [3, 4]], order="F"),
        "one": np.float32(0.25),
        "empty": np.array([], dtype=np.int64),
        "plain": (1, None, 2.5, True),
    }
    (tmp_path / "held.pkl").write_bytes(pickle.dumps(held, protocol=protocol))
    read = read_pickle(tmp_path / "held.pkl")
    for key in ("rows", "swapped", "box", "empty"):
        assert as_list(read[key]) == held[key].tolist()
    assert (read["names"], read["one"], read["plain"]) == (["a", "b"], 0.25, (1, None, 2.5, True))


def test_arrays_of_python_2(tmp_path):
    """numpy.arange(3) as Python 2 pickles it: its bytes are a string."""
    raw = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03\x85cnumpy\n"
        b"dtype\nU\x02i8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x18"
        + np.arange(3).tobytes()
        + b"tb."
    )
    (tmp_path / "old.pkl").write_bytes(raw)
    assert as_list(read_pickle(tmp_path / "old.pkl")) == [0, 1, 2]


class _Runs:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def test_nothing_runs(tmp_path):
    witness = tmp_path / "ran"
    attempts = [
        _Runs(os.mkdir, (str(witness),)),
        _Runs(eval, (f"__import__('os').mkdir({str(witness)!r})",)),
        _Runs(np.save, (str(witness), 0)),
        np.array([_Runs(os.mkdir, (str(witness),))], dtype=object),
        np.array([(1, 2.0)], dtype=[("a", "i8"), ("b", "f8")]),
        np.array([None], dtype=object),
    ]
    for attempt in attempts:
        (tmp_path / "bad.pkl").write_bytes(pickle.dumps(attempt))
        with pytest.raises(ValueError, match=r"cannot read .*bad\.pkl safely: expected only"):
            read_pickle(tmp_path / "bad.pkl")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pkl"]


def test_broken_files_are_named(tmp_path):
    whole = pickle.dumps({"rows": np.arange(4)})
    for length in range(len(whole)):
        (tmp_path / "torn.pkl").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cannot read the pickle .*torn\.pkl"):
            read_pickle(tmp_path / "torn.pkl")
