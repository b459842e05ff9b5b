"""Retrieval of images and detection of copies: ranks, mean average precision, and the official data sets.

The folders of revisited Oxford and Paris are read by `ssl_eval.retrieval.revisited`, Copydays' by
`ssl_eval.retrieval.copydays`; both need genviews-ssl-eval[images].
"""

from ssl_eval.retrieval.ranking import (
    RelevanceLabels,
    RetrievalScore,
    average_precision,
    precision_at,
    ranks_among,
    remove_junk,
    revisited_scores,
    score_ranks,
)

__all__ = [
    "RelevanceLabels",
    "RetrievalScore",
    "average_precision",
    "precision_at",
    "ranks_among",
    "remove_junk",
    "revisited_scores",
    "score_ranks",
]
