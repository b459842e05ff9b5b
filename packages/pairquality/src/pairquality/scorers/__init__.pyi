from .distill_config import DistillConfig
from .distillation import distill
from .distilled import DistilledScorer, load_distilled
from .scorer import ExactScorer, OnlineScorer, PairScorer
from .streaming_pca import StreamingPCA

__all__ = [
    "DistillConfig",
    "DistilledScorer",
    "ExactScorer",
    "OnlineScorer",
    "PairScorer",
    "StreamingPCA",
    "distill",
    "load_distilled",
]
