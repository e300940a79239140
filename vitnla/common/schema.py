"""The base of every record that is stored as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from vitnla.common.errors import InputError


class Record(BaseModel):
    """A frozen value that round-trips through JSON and refuses keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a record from a JSON file.

        Raises:
            InputError: the file is missing, is no JSON, or does not fit the schema; names the first field that does not.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
        except ValidationError as error:
            raise InputError(
                f"{path}: {first_complaint(error)}",
                f"correct this entry of the {cls.__name__}, or write the file again with this version",
            ) from error

    def to_json(self) -> str:
        """Return the record as indented JSON, ending with a newline."""
        return self.model_dump_json(indent=2) + "\n"


def first_complaint(error: ValidationError) -> str:
    """Return the first error of a record in one line: field, message, and the value found."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "the record"
    value = "" if first["type"] in {"json_invalid", "missing"} else f", got {str(first['input'])[:60]}"
    return f"{field}: {first['msg']}{value}"
