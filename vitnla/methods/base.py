"""What a method is, and the one registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import ValidationError

from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.common.measures import LayerRow
from vitnla.common.registry import Registry
from vitnla.common.schema import Record, first_complaint
from vitnla.model.vit import VisionTransformer

Kind = Literal["online", "deployable", "trained"]
C = TypeVar("C", bound=Record)


@dataclass(frozen=True)
class Decomposition:
    """A new model (the one given is never changed), and a row for every encoder linear, in `linear_names()` order."""

    model: VisionTransformer
    layers: tuple[LayerRow, ...]


@dataclass(frozen=True)
class Method(Generic[C]):
    """A named decomposition: its frozen config type and the function that applies it."""

    name: str
    kind: Kind
    summary: str
    config: type[C]
    apply: Callable[[VisionTransformer, Statistics | None, C], Decomposition]
    needs_statistics: Callable[[C], bool]
    """Whether `apply` with this config reads calibration statistics (else they may be None)."""
    lacks_latency: Callable[[C], bool] = lambda config: False
    """Whether this config has a `latency_model` to be filled in by a measurement before `apply`."""


METHODS: Registry[Method[Any]] = Registry("method")


def make_config(method: Method[Any], settings: Mapping[str, Any]) -> Record:
    """A method's config from the settings that were given.

    Raises:
        InputError: the method has no such setting, or its value is out of range.
    """
    for name in settings:
        if name not in method.config.model_fields:
            takes = ", ".join(method.config.model_fields) or "no settings"
            raise InputError(f"method '{method.name}' has no setting '{name}'", f"it takes {takes}; see vitdeploy methods")
    try:
        config: Record = method.config.model_validate(dict(settings))
    except ValidationError as error:
        raise InputError(f"method '{method.name}': {first_complaint(error)}", "see vitdeploy export --help") from error
    return config
