"""Scoring the pairs of a training step: exactly, by the network in training, or by a small distilled network."""

from pairquality.scorers.distillation import distill
from pairquality.scorers.distilled import DistilledScorer, load_distilled
from pairquality.scorers.exact import ExactScorer
from pairquality.scorers.rank_correlation import rank_correlation
from pairquality.scorers.recipe import Distillation
from pairquality.scorers.scorer import PairScorer
from pairquality.scorers.self_scorer import SelfScorer
from pairquality.scorers.streaming_pca import StreamingPCA

__all__ = [
    "Distillation",
    "DistilledScorer",
    "ExactScorer",
    "PairScorer",
    "SelfScorer",
    "StreamingPCA",
    "distill",
    "load_distilled",
    "rank_correlation",
]
