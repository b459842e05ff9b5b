"""Slides classified by the embeddings of their tiles: attention-based multiple instance learning."""

from ssl_eval.slides.attention_mil import AttentionMIL
from ssl_eval.slides.bag_training import BAG_PROTOCOLS, BagProtocol, slide_probabilities, train_attention
from ssl_eval.slides.class_folders import slides_of_folders
from ssl_eval.slides.class_scores import ClassScores, class_scores
from ssl_eval.slides.csv_labels import check_all_labelled, slides_of_csv
from ssl_eval.slides.slide import Slide, SlideSet, tiles_of
from ssl_eval.slides.tile_embeddings import KeptBags, embed_slides, read_bag

__all__ = [
    "BAG_PROTOCOLS",
    "AttentionMIL",
    "BagProtocol",
    "ClassScores",
    "KeptBags",
    "Slide",
    "SlideSet",
    "check_all_labelled",
    "class_scores",
    "embed_slides",
    "read_bag",
    "slide_probabilities",
    "slides_of_csv",
    "slides_of_folders",
    "tiles_of",
    "train_attention",
]
