"""Names of others in Markdown and CSV: shown as they are, never run, drawn or fetched."""

import re

FORMULA = re.compile(r"(?:^|(?<=[;\t\r\n]))(?=[=+@\-\uff1d\uff0b\uff20\uff0d])")
"""Before what a spreadsheet takes for a formula: = + @ - (also of full width) at the beginning of a cell, or of a part
that becomes a cell where another separator is chosen: https://owasp.org/www-community/attacks/CSV_Injection."""
MARKUP = re.compile(r"[\\`*\[\]<>|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
"""What GitHub's Markdown reads as markup anywhere in a line; an underscore inside a word is none:
https://github.github.com/gfm/."""
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def escape_markdown(text: str) -> str:
    """Return text for one line or cell of Markdown: no tag, link, image, emphasis or further line."""
    line = " ".join(text.split())
    return MARKUP.sub(lambda found: ENTITIES.get(found[0], f"\\{found[0]}"), line)


def escape_csv(text: str) -> str:
    """Return text for a cell of CSV: a quote mark before what a spreadsheet would run as a formula."""
    return FORMULA.sub("'", text)
