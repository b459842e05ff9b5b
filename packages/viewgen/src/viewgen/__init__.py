"""Synthetic views of unlabeled images for self-supervised learning."""

import importlib
from typing import TYPE_CHECKING, Any

from viewgen.embed import Embeddings, embed_images
from viewgen.encoder import ImageEncoder, load_encoder
from viewgen.generator import Generator, load_generator
from viewgen.images import UnreadableImage, list_images, read_image
from viewgen.interpolate import Interpolation, nearest_partners, slerp
from viewgen.manifest import fold_journals
from viewgen.run import RunSummary, generate_views
from viewgen.seeding import view_seed
from viewgen.verify import VerifyReport, verify_views

if TYPE_CHECKING:
    from viewgen import eldm

__all__ = [
    "Embeddings",
    "Generator",
    "ImageEncoder",
    "Interpolation",
    "RunSummary",
    "UnreadableImage",
    "VerifyReport",
    "eldm",
    "embed_images",
    "fold_journals",
    "generate_views",
    "list_images",
    "load_encoder",
    "load_generator",
    "nearest_partners",
    "read_image",
    "slerp",
    "verify_views",
    "view_seed",
]


def __getattr__(name: str) -> Any:
    """Import ``viewgen.eldm`` on first use: it brings diffusers, which takes seconds."""
    if name == "eldm":
        return importlib.import_module("viewgen.eldm")
    raise AttributeError(f"module 'viewgen' has no attribute {name!r}")
