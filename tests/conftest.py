"""What the repository's own tests share."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import sslzoo

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = (ROOT / "apps", ROOT / "benchmarks")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=4, help="how often the loop is killed in test_interruption.py")


@pytest.fixture(scope="module", autouse=True)
def programs_apart() -> Iterator[None]:
    """Programs name their modules alike (step, views): what one file of tests imports is not for the next."""
    yield
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(Path(file).is_relative_to(program) for program in PROGRAMS):
            del sys.modules[name]


@pytest.fixture(scope="session")
def save_untrained() -> Callable[[Path, int], Path]:
    """save_untrained(folder, image_size): the backbone folder of a small network of random weights."""

    def save(folder: Path, image_size: int) -> Path:
        torch.manual_seed(0)
        architecture = {"name": "resnet10", "cifar_stem": True, "width": 8, "image_size": image_size}
        recipe = {"image_size": image_size, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
        about = {"method": "none", "recipe": recipe, "epoch": 0, "data": "none"}
        network = sslzoo.create_backbone(**architecture)
        sslzoo.save_backbone(folder, network, architecture=architecture, **about)
        return folder

    return save


@pytest.fixture
def backbone(save_untrained, tmp_path) -> Path:
    """The folder of an untrained backbone for 32 px images."""
    return save_untrained(tmp_path / "backbone", 32)
