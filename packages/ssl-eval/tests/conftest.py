"""The small network and images that the trainings share with their second process."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def evaluated() -> ModuleType:
    spec = importlib.util.spec_from_file_location("evaluated", Path(__file__).parent / "evaluated.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
