"""How good is a pair of views: foreground maps, scores and weights."""

from pairquality.encoder import FeatureEncoder, denormalise
from pairquality.fit import fit_pca
from pairquality.fit_folder import fit_images
from pairquality.foreground import foreground_maps, foreground_ratio
from pairquality.load import load_encoder
from pairquality.overlay import foreground_sheet
from pairquality.pca import FittedOn, ForegroundPCA
from pairquality.ratios import RatiosSummary, write_ratios
from pairquality.score import PairScores, pair_scores
from pairquality.weights import pair_weights

__all__ = [
    "FeatureEncoder",
    "FittedOn",
    "ForegroundPCA",
    "PairScores",
    "RatiosSummary",
    "denormalise",
    "fit_images",
    "fit_pca",
    "foreground_maps",
    "foreground_ratio",
    "foreground_sheet",
    "load_encoder",
    "pair_scores",
    "pair_weights",
    "write_ratios",
]
