"""What a method is, and the one registry of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.common.measures import LayerRow
from vitnla.common.registry import Registry
from vitnla.common.schema import Record
from vitnla.methods.settings import filled
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


def method_of(config: Record) -> Method[Any]:
    """Return the method whose settings are of the type of `config`.

    Raises:
        InputError: no method has such settings, or several share them.
    """
    names = [name for name in METHODS if type(config) is METHODS[name].config]
    if len(names) == 1:
        return METHODS[names[0]]
    kind = type(config).__name__
    if names:
        raise InputError(f"settings of type {kind} belong to several methods: {', '.join(names)}", "say which, with method=NAME")
    known = sorted({METHODS[name].config.__name__ for name in METHODS})
    raise InputError(f"expected the settings of a method, got {kind}", f"one of {', '.join(known)}")


def make_config(method: Method[Any], settings: Mapping[str, Any]) -> Record:
    """A method's config from the settings that were given, see `vitnla.methods.settings.filled`."""
    config: Record = filled(method.name, method.config, settings)
    return config
