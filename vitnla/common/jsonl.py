"""Append-only files of records, one JSON object a line: what was written stays, whatever happens next."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from vitnla.common.errors import InputError
from vitnla.common.schema import Record, first_complaint

R = TypeVar("R", bound=Record)


def append_records(path: Path, records: Iterable[Record], hint: str) -> None:
    """Append one line per record; the folder is made where it is missing.

    Raises:
        InputError: the file cannot be written; says `hint`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write("".join(record.model_dump_json() + "\n" for record in records))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}", hint) from error


def read_records(path: Path, kind: type[R], origin: str) -> list[R]:
    """Every record of a file, in order.

    Args:
        path: the file.
        kind: what its lines are.
        origin: the command that writes such files, for the hint of an error.

    Raises:
        InputError: the file is missing, empty, cut in the middle, or of another schema; names the line.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", f"expected a results file of {origin}") from error
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
