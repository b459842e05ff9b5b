from . import coco
from .class_agreement import ClassAgreement, class_agreement, far_agreement
from .classification import Scores
from .features import Features, backbone_hash, extract_features
from .finetune import finetune
from .frozen_eval import evaluate_frozen
from .grid import EvalGrid, GridCell, GridOptions, compare, encoder_folders, list_argument, missing_cells, run_program
from .image_metrics import ImageMetrics, image_metrics
from .knn import knn_accuracy, knn_predictions
from .linear import LinearResult, linear_probe
from .linear_evaluation import features_of, linear_evaluation
from .metric_networks import ImageFeatures, load_inception, load_lpips
from .protocols import (
    ClassTokens,
    Cosine,
    FineTuneProtocol,
    KNNProtocol,
    LinearProtocol,
    MultiStep,
    Protocol,
    TransformConfig,
    scale_protocol,
)
from .published import PROTOCOLS, ProtocolOverride, find_protocol
from .results import Result, append_result, append_results, check_results, data_name, machine, read_results
from .subset import balanced_subset, listed_subset
from .table import Table, format_mean_with_error, standard_error, tabulate

__all__ = [
    "PROTOCOLS",
    "ClassAgreement",
    "ClassTokens",
    "Cosine",
    "EvalGrid",
    "Features",
    "FineTuneProtocol",
    "GridCell",
    "GridOptions",
    "ImageFeatures",
    "ImageMetrics",
    "KNNProtocol",
    "LinearProtocol",
    "LinearResult",
    "MultiStep",
    "Protocol",
    "ProtocolOverride",
    "Result",
    "Scores",
    "Table",
    "TransformConfig",
    "append_result",
    "append_results",
    "backbone_hash",
    "balanced_subset",
    "check_results",
    "class_agreement",
    "coco",
    "compare",
    "data_name",
    "encoder_folders",
    "evaluate_frozen",
    "extract_features",
    "far_agreement",
    "features_of",
    "find_protocol",
    "finetune",
    "format_mean_with_error",
    "image_metrics",
    "knn_accuracy",
    "knn_predictions",
    "linear_evaluation",
    "linear_probe",
    "list_argument",
    "listed_subset",
    "load_inception",
    "load_lpips",
    "machine",
    "missing_cells",
    "read_results",
    "run_program",
    "scale_protocol",
    "standard_error",
    "tabulate",
]
