"""Lowering to a precision for a runtime, checked before any long computation."""

from __future__ import annotations

from dataclasses import dataclass

from export.precision.runtimes.base import ASYMMETRIC, SYMMETRIC
from export.precision.runtimes.registry import known_quantizers, quantizer
from runtime.bundle.schema import Precision
from runtime.runners.registry import known_traits
from runtime.runners.runtime_precision import ORT_FP32, RuntimePrecision, parse_precision
from vitnla.common.errors import InputError, unknown_name

FP8_OPSET = 21
"""Oldest opset in which TensorRT accepts FP8."""


@dataclass(frozen=True)
class Lowering:
    """A precision for a runtime, which determines the tool; `activations` is the kind of int8 inputs, where there is a choice."""

    target: RuntimePrecision = ORT_FP32
    activations: str = ASYMMETRIC

    @property
    def runtime(self) -> str:
        """Name of the runtime that the precision is for."""
        return self.target.runtime

    @property
    def precision(self) -> Precision:
        """Precision of the graph."""
        return self.target.precision

    @property
    def symmetric(self) -> bool:
        """Whether int8 activations are chosen without a zero point."""
        return self.activations == SYMMETRIC

    @property
    def changes_graph(self) -> bool:
        """Whether the precision changes the graph."""
        return self.precision not in ("fp32", "bf16")

    @property
    def needs_its_runtime(self) -> bool:
        """Whether logits must be computed on the runtime itself: ONNX Runtime on the CPU differs, and the runtime can run here."""
        return self.precision != "fp32" and self.target.traits.needs_its_runtime

    @property
    def calibrates(self) -> bool:
        """Whether it needs calibration images."""
        return self.precision in ("int8", "fp8")

    def require(self) -> None:
        """Check, before any long computation, that the required packages are installed.

        Raises:
            MissingDependencyError: the quantiser's tool is absent, or the runtime that must compute the logits.
        """
        if self.target.quantized:
            quantizer(self.runtime).require()
        if self.needs_its_runtime:
            self.target.require()


def plan_lowering(precision: str, runtime: str, opset: int, activations: str = ASYMMETRIC) -> Lowering:
    """Return the requested lowering, checked before any long computation.

    Raises:
        InputError: the runtime does not compute in that precision, or the opset cannot express it, or there is no choice of activations.
        MissingDependencyError: the tool is absent.
    """
    known = {name: traits.export_precisions for name, traits in known_traits().items() if traits.export_precisions}
    asked = parse_precision(precision)
    if runtime not in known:
        raise unknown_name("runtime to export for", runtime, known)
    target = RuntimePrecision(runtime, asked)
    _check_activations(target, activations)
    if asked not in known[runtime]:
        able = [name for name, precisions in known.items() if asked in precisions]
        hint = f"--runtime {' or '.join(able)}" if able else "leave it fp32"
        if target.traits.runs_engines and asked in target.traits.run_precisions:
            hint = f"leave it fp32, and compile with --engine-precision {asked}"
        raise InputError(f"'{runtime}' computes in {', '.join(known[runtime])} here, not in {asked}", hint)
    if asked == "fp8" and opset < FP8_OPSET:
        raise InputError(f"fp8 needs opset {FP8_OPSET} or later, got {opset}", f"--opset {FP8_OPSET}")
    plan = Lowering(target, activations)
    plan.require()
    return plan


def lowerings(target: RuntimePrecision) -> tuple[Lowering, ...]:
    """Return the lowerings to a quantised precision on a runtime, one per kind of activations, the fastest first.

    Raises:
        InputError: the runtime has no quantiser.
    """
    return tuple(Lowering(target, scheme) for scheme in quantizer(target.runtime).schemes or (ASYMMETRIC,))


def _check_activations(target: RuntimePrecision, activations: str) -> None:
    """Check that the quantiser offers the kind of activations; without a choice, only the default is accepted."""
    offered = {name: found.schemes for name, found in known_quantizers().items() if found.schemes}
    kinds = dict.fromkeys((ASYMMETRIC, *(scheme for schemes in offered.values() for scheme in schemes)))
    if activations not in kinds:
        raise unknown_name("kind of int8 activations", activations, kinds)
    if activations == ASYMMETRIC or (target.precision == "int8" and activations in offered.get(target.runtime, ())):
        return
    able = [name for name, schemes in offered.items() if activations in schemes]
    hint = f"leave out --int8-activations, or export with --precision int8 --runtime {' or '.join(able)}"
    raise InputError(
        f"{activations} activations are a choice of int8 for {', '.join(able)}, got {target.precision} for {target.runtime}", hint
    )
