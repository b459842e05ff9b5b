"""Untrusted text: read user-provided files as UTF-8, escape text for Markdown and CSV."""

import re
from pathlib import Path


def read_text(path: Path) -> str:
    """Return the content of a text file without byte order mark; line endings are kept.

    Raises:
        ValueError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror or error}); give a text file") from None
    except UnicodeDecodeError as error:
        byte = f"{error.object[error.start]:#04x}"
        raise ValueError(f"expected UTF-8 text in {path}, got the byte {byte}; save it as UTF-8") from None


def read_names(path: Path) -> list[str]:
    """Return the stripped nonempty lines of a text file.

    Raises:
        ValueError: see `read_text`.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


FORMULA = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[=+@\-\uff1d\uff0b\uff20\uff0d])")
"""Position before text that spreadsheets evaluate as a formula: = + @ - (also fullwidth) at the start of a cell, or
after another possible separator: https://owasp.org/www-community/attacks/CSV_Injection."""
MARKUP = re.compile(r"[\\`*\[\]<>|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
"""Inline markup of GitHub Flavored Markdown, without underscores inside words: https://github.github.com/gfm/."""
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def escape_markdown(text: str) -> str:
    """Escape text for one line or table cell of Markdown; line breaks become spaces."""
    line = " ".join(text.split())
    return MARKUP.sub(lambda match: ENTITIES.get(match[0], f"\\{match[0]}"), line)


def escape_csv(text: str) -> str:
    """Escape text for a CSV cell: prefix potential formulas with a single quote."""
    return FORMULA.sub("'", text)
