"""What an encoder is worth: kNN, linear probe, fine-tuning on few labels, and their results."""

from ssl_eval.class_agreement import ClassAgreement, class_agreement, far_agreement
from ssl_eval.comparison import Cell, compare, list_argument, named_folders, unmeasured
from ssl_eval.features import Features, extract_features
from ssl_eval.finetune import finetune
from ssl_eval.frozen import evaluate_frozen
from ssl_eval.grid import GridRun
from ssl_eval.image_metrics import ImageMetrics, image_metrics
from ssl_eval.knn import knn_accuracy, knn_predictions
from ssl_eval.linear import LinearResult, linear_probe
from ssl_eval.linear_evaluation import linear_evaluation
from ssl_eval.metric_networks import ImageFeatures, load_inception, load_lpips
from ssl_eval.protocols import FineTuneProtocol, KNNProtocol, LinearProtocol, Preparation, Protocol, adapted
from ssl_eval.published import PROTOCOLS, find_protocol
from ssl_eval.results import (
    Result,
    append_result,
    append_results,
    backbone_hash,
    check_results,
    data_name,
    machine,
    read_results,
)
from ssl_eval.schedule import Cosine, Steps
from ssl_eval.scores import Scores
from ssl_eval.subset import balanced_subset, listed_subset
from ssl_eval.table import Table, tabulate
from ssl_eval.token_features import ClassTokens, features_of
from ssl_eval.variant import Variant

__all__ = [
    "PROTOCOLS",
    "Cell",
    "ClassAgreement",
    "ClassTokens",
    "Cosine",
    "Features",
    "FineTuneProtocol",
    "GridRun",
    "ImageFeatures",
    "ImageMetrics",
    "KNNProtocol",
    "LinearProtocol",
    "LinearResult",
    "Preparation",
    "Protocol",
    "Result",
    "Scores",
    "Steps",
    "Table",
    "Variant",
    "adapted",
    "append_result",
    "append_results",
    "backbone_hash",
    "balanced_subset",
    "check_results",
    "class_agreement",
    "compare",
    "data_name",
    "evaluate_frozen",
    "extract_features",
    "far_agreement",
    "features_of",
    "find_protocol",
    "finetune",
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
    "named_folders",
    "read_results",
    "tabulate",
    "unmeasured",
]
