"""How good is a pair of views: foreground maps, scores and weights."""

from pairquality.fit import fit_pca
from pairquality.foreground import foreground_maps, foreground_ratio
from pairquality.pca import ForegroundPCA
from pairquality.score import PairScores, pair_scores
from pairquality.weights import pair_weights

__all__ = [
    "ForegroundPCA",
    "PairScores",
    "fit_pca",
    "foreground_maps",
    "foreground_ratio",
    "pair_scores",
    "pair_weights",
]
