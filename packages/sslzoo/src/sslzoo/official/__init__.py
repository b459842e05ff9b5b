"""The checkpoints of the official repositories, opened without running anything in them."""

from sslzoo.official.classifier import Classifier, open_classifier
from sslzoo.official.layout import Layout
from sslzoo.official.layouts import LAYOUTS, NAMED
from sslzoo.official.opening import open_official

__all__ = ["LAYOUTS", "NAMED", "Classifier", "Layout", "open_classifier", "open_official"]
