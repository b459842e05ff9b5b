"""What an encoder is worth: kNN, linear probe and their results."""

from ssl_eval.features import Features, extract_features
from ssl_eval.frozen import evaluate_frozen
from ssl_eval.knn import knn_accuracy, knn_predictions
from ssl_eval.linear import LinearResult, linear_probe
from ssl_eval.results import Result, append_result, backbone_hash, machine, read_results
from ssl_eval.table import Table, tabulate

__all__ = [
    "Features",
    "LinearResult",
    "Result",
    "Table",
    "append_result",
    "backbone_hash",
    "evaluate_frozen",
    "extract_features",
    "knn_accuracy",
    "knn_predictions",
    "linear_probe",
    "machine",
    "read_results",
    "tabulate",
]
