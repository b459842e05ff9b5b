from .encoder import FeatureEncoder, denormalize
from .encoder_loading import load_encoder
from .fit import fit_images, fit_pca
from .foreground import FittedOn, ForegroundPCA, foreground_maps, foreground_ratio
from .ratios import RatiosSummary, write_ratios
from .score import PairScores, pair_scores, pair_weights, rank_correlation
from .visualize import foreground_sheet

__all__ = [
    "FeatureEncoder",
    "FittedOn",
    "ForegroundPCA",
    "PairScores",
    "RatiosSummary",
    "denormalize",
    "fit_images",
    "fit_pca",
    "foreground_maps",
    "foreground_ratio",
    "foreground_sheet",
    "load_encoder",
    "pair_scores",
    "pair_weights",
    "rank_correlation",
    "write_ratios",
]
