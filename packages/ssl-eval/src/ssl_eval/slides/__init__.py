"""Slides classified by the embeddings of their tiles: attention-based multiple instance learning."""

from ssl_eval.slides.attention_mil import MIL_PROTOCOLS, AttentionMIL, MILProtocol, slide_probabilities, train_mil
from ssl_eval.slides.classification_metrics import ClassificationMetrics, classification_metrics
from ssl_eval.slides.slide_sets import Slide, SlideSet, check_all_labeled, slides_of_csv, slides_of_folders, tiles_of
from ssl_eval.slides.tile_embeddings import CachedBags, embed_slides, read_bag

__all__ = [
    "MIL_PROTOCOLS",
    "AttentionMIL",
    "CachedBags",
    "ClassificationMetrics",
    "MILProtocol",
    "Slide",
    "SlideSet",
    "check_all_labeled",
    "classification_metrics",
    "embed_slides",
    "read_bag",
    "slide_probabilities",
    "slides_of_csv",
    "slides_of_folders",
    "tiles_of",
    "train_mil",
]
