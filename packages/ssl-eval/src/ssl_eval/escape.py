"""Escaping of untrusted text in Markdown and CSV."""

import re

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
