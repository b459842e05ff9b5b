"""Lists and tables that users give: read as UTF-8, or one line that names the file."""

from pathlib import Path


def read_text(path: Path) -> str:
    """Return what a text file holds, with or without a byte order mark, its line ends as they are.

    Raises:
        ValueError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        byte = f"{error.object[error.start]:#04x}"
        raise ValueError(f"expected UTF-8 text in {path}, got the byte {byte}; save it as UTF-8") from None


def read_names(path: Path) -> list[str]:
    """Return the lines of a list that hold anything, without spaces around them.

    Raises:
        ValueError: see `read_text`.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
