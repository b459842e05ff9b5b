"""The tiny models, saved once."""

from pathlib import Path

import pytest
from diffusers import UNet2DConditionModel
from tiny_diffusion import save_adapters, save_base, save_kandinsky


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {kind: save_base(root / kind, kind) for kind in ("sd", "sdxl")}


@pytest.fixture(scope="session")
def adapters(bases, tmp_path_factory) -> Path:
    """The folder of h94/IP-Adapter."""
    unets = [
        UNet2DConditionModel.from_pretrained(bases[kind] / "unet", low_cpu_mem_usage=False) for kind in ("sd", "sdxl")
    ]
    return save_adapters(tmp_path_factory.mktemp("adapters") / "IP-Adapter", *unets)


@pytest.fixture(scope="session")
def kandinsky(tmp_path_factory) -> Path:
    """The folders decoder and prior."""
    return save_kandinsky(tmp_path_factory.mktemp("kandinsky"))
