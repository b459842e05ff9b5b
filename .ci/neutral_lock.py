"""Bring uv.lock to the form that is committed: every pinned version, no address.

    python .ci/neutral_lock.py            # rewrite ./uv.lock
    python .ci/neutral_lock.py --check    # exit 1 where it is not in that form

uv keeps every pin of such a file, looks the packages up on whichever index the machine uses, and writes the addresses
into the working copy only.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "uv.lock"


def neutral(lock: str) -> str:
    """Drop sdists, wheels and `[package.metadata]` sections, and name the registry "."."""
    lock = re.sub(r'source = \{ registry = "[^"]*" \}', 'source = { registry = "." }', lock)
    lock = re.sub(r"^sdist = \{[^\n]*\}\n", "", lock, flags=re.M)
    lock = re.sub(r"^wheels = \[\n(?:[^\n]*\n)*?\]\n", "", lock, flags=re.M)
    lock = re.sub(r"^\[package\.metadata(?:\.[^\]]*)?\]\n(?:(?!\[)[^\n]*\n)*", "", lock, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", lock).rstrip() + "\n"


def main() -> None:
    """Rewrite or check the lock file."""
    text = LOCK.read_text()
    if "--check" not in sys.argv[1:]:
        LOCK.write_text(neutral(text))
    elif text != neutral(text):
        sys.exit("uv.lock names addresses: run `python .ci/neutral_lock.py` before you commit it")


if __name__ == "__main__":
    main()
