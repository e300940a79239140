"""Conversion of settings from the command line to a method's config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from vitnla.common.errors import InputError
from vitnla.common.schema import Record, first_complaint

C = TypeVar("C", bound=Record)


def filled(method: str, config: type[C], settings: Mapping[str, Any]) -> C:
    """Return the config of the method of that name, from the given settings.

    Raises:
        InputError: the method has no such setting, or its value is out of range.
    """
    for name in settings:
        if name not in config.model_fields:
            takes = ", ".join(config.model_fields) or "no settings"
            raise InputError(f"method '{method}' has no setting '{name}'", f"it takes {takes}; see vitdeploy methods")
    try:
        return config.model_validate(dict(settings))
    except ValidationError as error:
        raise InputError(f"method '{method}': {first_complaint(error)}", "see vitdeploy export --help") from error
