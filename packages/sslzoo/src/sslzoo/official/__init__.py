"""Load checkpoints of official repositories, without executing code in them."""

from sslzoo.official.formats import FORMATS, NAMED_FORMATS, CheckpointFormat
from sslzoo.official.load import Classifier, load_classifier, load_official_checkpoint

__all__ = [
    "FORMATS",
    "NAMED_FORMATS",
    "CheckpointFormat",
    "Classifier",
    "load_classifier",
    "load_official_checkpoint",
]
