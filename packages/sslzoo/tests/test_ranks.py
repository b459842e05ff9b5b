"""Two gloo processes with half of the batch each match one process with the whole batch.

MoCo v2 normalizes each half separately: with batch norm per rank, or in one process with two splits.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = Path(__file__).with_name("ranks.py")
METHODS = [
    "simsiam",
    "moco_v2",
    "moco_v2_symmetric",
    "dino",
    "gen_dino",
    "byol",
    "moco_v3",
    "swav",
    "simclr",
    "vicreg",
    "barlow_twins",
]
JOINED = ["vicreg", "barlow_twins"]  # their loss is that of the whole batch, on every rank


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Results of [one process], then of [rank 0, rank 1]."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, PROGRAM, folder], env=environment, capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{name}.pt") for name in ("1.0", "2.0", "2.1")]


def close(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-7, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_gradients_and_buffers_are_those_of_the_joined_batch(found, method, step):
    one, *two = [results[method]["steps"][step] for results in found]
    torch.testing.assert_close(one["loss"], (two[0]["loss"] + two[1]["loss"]) / 2)
    assert (two[0]["loss"] == two[1]["loss"]) == (method in JOINED)
    assert sum(gradient.norm() for gradient in one["gradients"].values()) > 1e-3
    for rank in two:
        close(one["gradients"], rank["gradients"])
        close(one["buffers"], rank["buffers"])


@pytest.mark.parametrize("method", METHODS)
def test_parameters_stay_together(found, method):
    one, *two = [results[method]["parameters"] for results in found]
    for rank in two:
        close(one, rank)


def test_gather_carries_the_gradient_of_other_ranks(found):
    one, *two = [results["gather"] for results in found]
    torch.testing.assert_close(torch.cat(two) / 2, one)  # DistributedDataParallel takes the mean over ranks


def test_shuffled_key_maps_are_unshuffled(found):
    one, *two = [results["key maps"] for results in found]
    torch.testing.assert_close(torch.cat(two), one)


def test_shuffled_rows_come_back_in_place(found):
    one, *two = [results["shuffled"] for results in found]
    assert torch.equal(torch.cat(two), one)
