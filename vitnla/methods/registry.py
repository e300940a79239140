"""The `Method` record and the registry of methods, for torch models and, where a method supports them, ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from vitnla.common.errors import InputError
from vitnla.common.measures import LayerRow
from vitnla.common.registry import LazyRegistry
from vitnla.common.schema import Record
from vitnla.methods.settings import filled

if TYPE_CHECKING:
    from vitnla.calibration.statistics import Statistics
    from vitnla.model.vit import VisionTransformer

Kind = Literal["online", "deployable", "trained"]
C = TypeVar("C", bound=Record)


@dataclass(frozen=True)
class Decomposition:
    """A new model (the input is never changed), and a row for every encoder linear, in `linear_names()` order."""

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
    """True where `apply` with this config reads calibration statistics (else they may be None)."""
    lacks_latency: Callable[[C], bool] = lambda config: False
    """True where this config has a `latency_model` to be filled in by a measurement before `apply`."""
    works_on_graphs: bool = False
    """True where it can decompose `onnx:FILE`: then `export.from_onnx.decompose` has a graph edit of this name."""
    needs_sensitivity: Callable[[C], bool] = lambda config: False
    """True where this config reads the sensitivities of a graph's linears, which take extra runs; else they may be 1."""


_HOMES = {
    "auto": "auto.apply", "cholesky": "cholesky.method", "none": "none.method",
    **dict.fromkeys(
        ("cholesky-online", "pca-online", "svd-online", "tensor-online", "svd-full", "cholesky-symmetric"), "online.apply"
    ),
    "pca": "pca.apply", "pca-slice": "pca_slice.apply", "svd": "svd.method", "symmetric": "symmetric.apply", "tensor": "tensor.apply",
}  # fmt: skip
"""The module that registers each method."""
METHODS: LazyRegistry[Method[Any]] = LazyRegistry("method", {name: f"vitnla.methods.{home}" for name, home in _HOMES.items()})


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
    """Return a method's config from the given settings, see `vitnla.methods.settings.filled`."""
    config: Record = filled(method.name, method.config, settings)
    return config
