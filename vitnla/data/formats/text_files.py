"""Lists of names in data sets' text files."""

from __future__ import annotations

from pathlib import Path

from vitnla.common.errors import InputError


def read_lines(path: Path, holds: str) -> list[str]:
    """Return the non-blank lines of a UTF-8 text file, stripped.

    Args:
        path: the file.
        holds: what the lines are, for the error.

    Raises:
        InputError: the file is missing, empty, or no text.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected {holds}, one a line, got: {error}", "copy the file again") from error
    if not lines:
        raise InputError(f"{path}: expected {holds}, one a line, got an empty file", "copy the file again")
    return lines
