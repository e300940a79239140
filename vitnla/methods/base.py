"""What a method is, and the one registry of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from vitnla.calibration.statistics import Statistics
from vitnla.common.measures import LayerRow
from vitnla.common.registry import Registry
from vitnla.common.schema import Record
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


METHODS: Registry[Method[Any]] = Registry("method")
