"""Synthetic views of unlabeled images for self-supervised learning."""

import importlib
from typing import TYPE_CHECKING, Any

from genviews_core.files import WriteError as UnwritableOutput
from viewgen.condition_encoder import ConditionEncoder
from viewgen.contact_sheet import contact_sheet
from viewgen.embed import Embeddings, embed_images
from viewgen.encoder import ImageEncoder, load_encoder
from viewgen.generator import Generator, GeneratorSpec, load_generator
from viewgen.images import UnreadableImage, iter_images, list_images, read_image
from viewgen.interpolate import Interpolation, nearest_partners, slerp
from viewgen.key_list import read_key_list
from viewgen.manifest import VerifyReport, fold_journals, verify_views
from viewgen.ratios import ForegroundRatios
from viewgen.run import RunSummary, generate_views
from viewgen.seeding import view_seed
from viewgen.strength import (
    AdaptiveStrength,
    ConstantStrength,
    RandomStrength,
    Strength,
    noise_level,
    parse_strength,
)

if TYPE_CHECKING:
    from viewgen import caption, eldm, icgan, maskgit, retrieval, unclip

__all__ = [
    "AdaptiveStrength",
    "ConditionEncoder",
    "ConstantStrength",
    "Embeddings",
    "ForegroundRatios",
    "Generator",
    "GeneratorSpec",
    "ImageEncoder",
    "Interpolation",
    "RandomStrength",
    "RunSummary",
    "Strength",
    "UnreadableImage",
    "UnwritableOutput",
    "VerifyReport",
    "caption",
    "contact_sheet",
    "eldm",
    "embed_images",
    "fold_journals",
    "generate_views",
    "icgan",
    "iter_images",
    "list_images",
    "load_encoder",
    "load_generator",
    "maskgit",
    "nearest_partners",
    "noise_level",
    "parse_strength",
    "read_image",
    "read_key_list",
    "retrieval",
    "slerp",
    "unclip",
    "verify_views",
    "view_seed",
]


LAZY = {"caption", "eldm", "icgan", "maskgit", "retrieval", "unclip"}


def __getattr__(name: str) -> Any:
    """Import a generator's module on first use: some bring diffusers, which takes seconds."""
    if name in LAZY:
        return importlib.import_module(f"viewgen.{name}")
    raise AttributeError(f"module 'viewgen' has no attribute {name!r}")
