"""Interface of quantisers, which convert a bundle's fp32 graph to a quantised one for a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.bundle.schema import Quantization
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.model.config import ViTConfig

if TYPE_CHECKING:
    from export.precision.calibration import Calibration

OnStep = Callable[[str], None]
ASYMMETRIC, SYMMETRIC = "asymmetric", "symmetric"
"""Kinds of int8 activations: with a zero point, or without."""


class Quantizer(ABC):
    """Quantiser of graphs for a runtime, by that runtime's own tool; it may be registered for several runtimes.

    Its module must not import optional packages, since every quantiser is loaded to list its schemes.
    """

    schemes: tuple[str, ...] = ()
    """Kinds of int8 activations to choose from, the fastest first, the default `ASYMMETRIC` among them; none where there is no choice."""
    quantizes_scores: bool = False
    """Whether Q K^T is quantised too, and is to be timed as such."""

    def require(self) -> None:  # noqa: B027 - most tools come with vitdeploy
        """Check, before any long computation, that the tool is installed.

        Raises:
            MissingDependencyError: it is not installed.
        """

    @abstractmethod
    def describe(self, target: RuntimePrecision, activations: str) -> str:
        """Return one line for the manifest: granularity and range of weights and inputs, and what stays in float."""

    @abstractmethod
    def quantize(
        self, path: Path, target: RuntimePrecision, activations: str, config: ViTConfig, calibration: Calibration, on_step: OnStep
    ) -> Quantization:
        """Quantise the graph at `path`, in place.

        Args:
            path: the fp32 graph; replaced.
            target: the runtime, and one of the quantised precisions in its `traits.export_precisions`.
            activations: one of `schemes`; ignored where there is no choice.
            config: of the graph: its encoder's linears are what is quantised.
            calibration: its images; none for `int8-dynamic`.
            on_step: called with a line of text before each step.
        """
