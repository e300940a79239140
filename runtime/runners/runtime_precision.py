"""Pairs of runtime and precision: the targets of exports and operator timings, and the choices of `tune`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Self, get_args

from runtime.bundle.schema import Precision
from runtime.runners.registry import runner, traits
from runtime.runners.traits import Traits
from vitnla.common.errors import MissingDependencyError, unknown_name

QUANTIZED: tuple[Precision, ...] = ("int8", "int8-dynamic", "fp8")
"""Precisions made by a quantiser; the others are casts."""


@dataclass(frozen=True)
class RuntimePrecision:
    """A runtime, by its registered name, and the precision of a model on it."""

    runtime: str = "ort"
    precision: Precision = "fp32"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `ort`, which is fp32, or `openvino:int8`.

        Raises:
            InputError: the runtime or the precision is unknown; lists the choices.
            MissingDependencyError: the module that defines the runtime cannot be imported.
        """
        runtime, colon, precision = text.partition(":")
        traits(runtime)
        if not colon:
            return cls(runtime)
        return cls(runtime, parse_precision(precision))

    @property
    def label(self) -> str:
        """Text form that `parse` reads: `ort`, `openvino:int8`."""
        return self.runtime if self.precision == "fp32" else f"{self.runtime}:{self.precision}"

    @property
    def traits(self) -> Traits:
        """Traits of the runtime."""
        return traits(self.runtime)

    @property
    def quantized(self) -> bool:
        """True if the precision is made by a quantiser."""
        return self.precision in QUANTIZED

    def require(self) -> None:
        """Refuse a runtime that cannot run here.

        Raises:
            MissingDependencyError: with the reason and the remedy.
        """
        runner(self.runtime).availability().require(self.runtime)

    def version(self) -> str:
        """Return the version of the distribution that provides the runtime.

        Raises:
            MissingDependencyError: the runtime cannot run here, or none of its distributions is installed.
        """
        self.require()
        for package in self.traits.packages:
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        names = " or ".join(self.traits.packages) or "a distribution named in its traits"
        raise MissingDependencyError(f"runtime '{self.runtime}' has no version: {names} is not installed", f"install {names}")


ORT_FP32 = RuntimePrecision()
"""ONNX Runtime in fp32: the reference and the default."""


def parse_precision(name: str) -> Precision:
    """Return the precision of that name.

    Raises:
        InputError: there is none; lists those there are.
    """
    known: tuple[Precision, ...] = get_args(Precision)
    for precision in known:
        if precision == name:
            return precision
    raise unknown_name("precision", name, known)
