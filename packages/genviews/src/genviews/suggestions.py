"""Hints for misspelled names of options, recipes, tasks and jobs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str], *, otherwise: str) -> str:
    """Return "did you mean A or B?" for the most similar names, or `otherwise` if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=2)
    return f"did you mean {' or '.join(near)}?" if near else otherwise
