"""Reading of user-provided text files as UTF-8."""

from pathlib import Path


def read_text(path: Path) -> str:
    """Return the content of a text file without byte order mark; line endings are kept.

    Raises:
        ValueError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        byte = f"{error.object[error.start]:#04x}"
        raise ValueError(f"expected UTF-8 text in {path}, got the byte {byte}; save it as UTF-8") from None


def read_names(path: Path) -> list[str]:
    """Return the stripped nonempty lines of a text file.

    Raises:
        ValueError: see `read_text`.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
