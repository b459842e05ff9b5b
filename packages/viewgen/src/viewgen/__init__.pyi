from . import caption, eldm, icgan, ip_adapter, maskgit, retrieval, unclip
from .embed import Embeddings, embed_images
from .encoder import ConditionEncoder, ImageEncoder, load_encoder
from .generator import Generator
from .interpolate import Interpolation, nearest_partners, slerp
from .keys import UnreadableImage, iter_images, list_images, read_image, read_key_list
from .loading import GeneratorSpec, load_generator
from .manifest import ShardStore, VerifyReport, holds_shards, merge_journals, verify_shards, verify_views
from .ratios import ForegroundRatios
from .run import RunEstimate, RunSummary, estimate_run, generate_shards, generate_views
from .seeding import view_seed
from .sheet import contact_sheet
from .statistics import measure_statistics
from .strength import AdaptiveStrength, ConstantStrength, RandomStrength, Strength, noise_level, parse_strength

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
    "RunEstimate",
    "RunSummary",
    "ShardStore",
    "Strength",
    "UnreadableImage",
    "VerifyReport",
    "caption",
    "contact_sheet",
    "eldm",
    "embed_images",
    "estimate_run",
    "generate_shards",
    "generate_views",
    "holds_shards",
    "icgan",
    "ip_adapter",
    "iter_images",
    "list_images",
    "load_encoder",
    "load_generator",
    "maskgit",
    "measure_statistics",
    "merge_journals",
    "nearest_partners",
    "noise_level",
    "parse_strength",
    "read_image",
    "read_key_list",
    "retrieval",
    "slerp",
    "unclip",
    "verify_shards",
    "verify_views",
    "view_seed",
]
