"""Retrieval of images and detection of copies: ranks, mean average precision, and the official data sets.

The folders of revisited Oxford and Paris are read by `ssl_eval.retrieval.revisited`, Copydays' by
`ssl_eval.retrieval.copydays`; both need genviews-ssl-eval[images].
"""

from ssl_eval.retrieval.ranking import looking_past, ranks_among
from ssl_eval.retrieval.scores import (
    Judgement,
    RetrievalScore,
    average_precision,
    precision_at,
    revisited_scores,
    score_ranks,
)

__all__ = [
    "Judgement",
    "RetrievalScore",
    "average_precision",
    "looking_past",
    "precision_at",
    "ranks_among",
    "revisited_scores",
    "score_ranks",
]
