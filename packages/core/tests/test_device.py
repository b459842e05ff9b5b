import pytest
import torch

from genviews_core.device import resolve_device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_each_name_with_two_gpus(two_gpus):
    found = [str(resolve_device(name, local_rank=1)) for name in ("auto", "cuda", "cuda:0", "cpu")]
    assert found == ["cuda:1", "cuda:1", "cuda:0", "cpu"]


def test_a_gpu_beyond_the_last(two_gpus):
    with pytest.raises(ValueError, match="expected one of 2 GPUs, got cuda:2; give a lower one"):
        resolve_device("cuda:2")
    with pytest.raises(ValueError, match="expected one of 2 GPUs, got cuda:2; lower torchrun's --nproc_per_node"):
        resolve_device("auto", local_rank=2)


def test_a_machine_without_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps"):
        with pytest.raises(
            ValueError, match=f"^expected a device of this machine, got {name}, [^\n]*; give --device cpu"
        ):
            resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", "", "meta"])
def test_invalid_device_names(name):
    with pytest.raises(ValueError, match=f"expected a device auto, cpu, cuda, cuda:N or mps, got '{name}'"):
        resolve_device(name)
