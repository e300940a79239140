"""Which precision, for which runtime: what can be asked for, checked before any long work."""

from __future__ import annotations

from dataclasses import dataclass

from export.precision.runtimes.base import ASYMMETRIC, SYMMETRIC
from export.precision.runtimes.registry import known_quantizers, quantizer
from runtime.bundle.schema import Precision
from runtime.runners.registry import known_traits
from runtime.runners.runtime_precision import ORT_FP32, RuntimePrecision, parse_precision
from vitnla.common.errors import InputError, unknown_name

FP8_OPSET = 21
"""The first that TensorRT takes FP8 in."""


@dataclass(frozen=True)
class Lowering:
    """What to lower to: the runtime decides the tool; `activations` is about the inputs of int8 products, where that is a choice."""

    target: RuntimePrecision = ORT_FP32
    activations: str = ASYMMETRIC

    @property
    def runtime(self) -> str:
        """The runtime that the precision is for, by its name."""
        return self.target.runtime

    @property
    def precision(self) -> Precision:
        """Of the graph."""
        return self.target.precision

    @property
    def symmetric(self) -> bool:
        """Whether the inputs of int8 products have no zero point, where that is a choice."""
        return self.activations == SYMMETRIC

    @property
    def changes_graph(self) -> bool:
        """Whether the graph becomes another one."""
        return self.precision not in ("fp32", "bf16")

    @property
    def needs_its_runtime(self) -> bool:
        """Whether ONNX Runtime on the CPU cannot say what the runtime will answer, and the runtime can be asked here."""
        return self.precision != "fp32" and self.target.traits.needs_its_runtime

    @property
    def calibrates(self) -> bool:
        """Whether it needs images."""
        return self.precision in ("int8", "fp8")

    def require(self) -> None:
        """Refuse what cannot be made here, before the long work.

        Raises:
            MissingDependencyError: the quantiser's tool is absent, or the runtime that has to be asked.
        """
        if self.target.quantized:
            quantizer(self.runtime).require()
        if self.needs_its_runtime:
            self.target.require()


def plan_lowering(precision: str, runtime: str, opset: int, activations: str = ASYMMETRIC) -> Lowering:
    """Check what was asked for, before any long work.

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
    """Every lowering to a quantised precision on a runtime, by the kinds of activations that its quantiser offers, the fastest first.

    Raises:
        InputError: the runtime has no quantiser.
    """
    return tuple(Lowering(target, scheme) for scheme in quantizer(target.runtime).schemes or (ASYMMETRIC,))


def _check_activations(target: RuntimePrecision, activations: str) -> None:
    """Refuse a kind of activations that the quantiser does not offer; the default is what there is where there is no choice."""
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
