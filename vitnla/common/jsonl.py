"""Append-only files of records, one JSON object a line; a killed process damages the last line at most."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record, first_complaint

R = TypeVar("R", bound=Record)


def append_records(path: Path, records: Iterable[Record], hint: str, on_cut: Callable[[str], None] = lambda notice: None) -> None:
    """Append one line per record; the folder is made where it is missing.

    A last line that a killed process left unfinished is removed first, since lines after it could not be read; `on_cut` is called with a
    notice.

    Raises:
        InputError: the file cannot be written; says `hint`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _mend_end(path, on_cut)
        with path.open("a") as stream:
            stream.write("".join(record.model_dump_json() + "\n" for record in records))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}", hint) from error


def _mend_end(path: Path, on_cut: Callable[[str], None]) -> None:
    data = path.read_bytes() if path.is_file() else b""
    whole, newline, last = data.rpartition(b"\n")
    if not last:
        return
    if _is_cut(last):
        write_atomically(path, whole + newline)
        on_cut(f"{path}: removed the last line, which was cut in the middle")
    else:
        write_atomically(path, data + b"\n")


def _is_cut(line: str | bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def read_records(path: Path, kind: type[R], origin: str, on_cut: Callable[[str], None] | None = None) -> list[R]:
    """Return every record of a file, in order.

    Args:
        path: the file.
        kind: the type of its lines.
        origin: the command that writes such files, for the hint of an error.
        on_cut: called with a notice on a last line that was cut in the middle, which is left out; without it, such a line is an error.

    Raises:
        InputError: the file is missing, empty, cut in the middle, or of another schema; names the line.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", f"expected a results file of {origin}") from error
    lines = text.splitlines()
    if on_cut is not None and lines and not text.endswith("\n") and _is_cut(lines[-1]):
        on_cut(f"{path}: line {len(lines)} is cut in the middle and was left out; those before it were read")
        lines.pop()
    if not lines:
        raise InputError(f"{path} holds no results", f"run {origin} first")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as error:
            hint = f"remove the damaged line, or run {origin} again"
            raise InputError(f"{path}, line {number}: {first_complaint(error)}", hint) from error
    return records
