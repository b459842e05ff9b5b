"""Try a package where it is installed alone: import every module, then run the tests that are named.

    python .ci/alone.py PACKAGE [PYTEST ARGUMENT ...]

A module may ask for what only an extra brings, and for nothing else that is not installed.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys

import pytest

OPTIONAL = {
    "genviews_core": {"timm", "torchvision"},  # [backbones]
    "pairdata": {"ffcv", "numba"},  # [ffcv]
    "viewgen": {"faiss", "ray"},  # [faiss], [ray]
    "ssl_eval": {
        *("PIL", "torchvision", "scipy", "torch_fidelity"),  # [images]
        *("faster_coco_eval", "pycocotools", "detectron2"),  # [coco]; detectron2 from its repository
        *("jinja2", "matplotlib"),  # [report]
    },
    "genviews": {"ffcv", "wandb"},  # [ffcv], [wandb]
}
"""What the extras of each package bring, by the names under which it is imported."""


def import_modules(package: str) -> None:
    """Import all modules; say how many, and which ask for an extra."""
    root = importlib.import_module(package)
    names = [module.name for module in pkgutil.walk_packages(root.__path__, f"{package}.", onerror=lambda name: None)]
    without = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in OPTIONAL.get(package, set()):
                raise
            without.append(f"{name} ({error.name})")
    print(f"{package}: {len(names)} modules imported" + (f", but for {', '.join(without)}" if without else ""))


if __name__ == "__main__":
    import_modules(sys.argv[1])
    if sys.argv[2:]:
        sys.exit(pytest.main(sys.argv[2:]))
