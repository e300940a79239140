"""Which precision, for which runtime: what can be asked for, checked before any long work."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import get_args

from runtime.bundle.schema import Precision
from runtime.runners.registry import runner
from vitnla.common.errors import InputError, MissingDependencyError, unknown_name

PRECISIONS: dict[str, tuple[Precision, ...]] = {
    "ort": ("fp32", "fp16", "int8", "int8-dynamic"),
    "openvino": ("fp32", "bf16", "int8"),
    "trt": ("fp32", "fp16", "int8", "fp8"),
    "trt-rtx": ("fp32", "fp16", "int8", "fp8"),
}
"""What each runtime computes in. OpenVINO's bf16 is a hint, not a graph; an engine in bf16 is made of an fp32 bundle."""
ASYMMETRIC, SYMMETRIC = "asymmetric", "symmetric"
FP8_OPSET = 21
"""The first that TensorRT takes FP8 in."""


@dataclass(frozen=True)
class Lowering:
    """What to lower to. `runtime` decides the tool and the scheme; `activations` is about the inputs of int8 products."""

    precision: Precision
    runtime: str
    activations: str = ASYMMETRIC

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
        return self.runtime == "openvino" and self.precision != "fp32"

    @property
    def calibrates(self) -> bool:
        """Whether it needs images."""
        return self.precision in ("int8", "fp8")


def plan_lowering(precision: str, runtime: str, opset: int, activations: str = ASYMMETRIC) -> Lowering:
    """Check what was asked for, before any long work.

    Raises:
        InputError: the runtime does not compute in that precision, or the opset cannot express it, or there is no choice of activations.
        MissingDependencyError: the tool is absent.
    """
    if precision not in (known := get_args(Precision)):
        raise unknown_name("precision", precision, known)
    if runtime not in PRECISIONS:
        raise unknown_name("runtime to export for", runtime, PRECISIONS)
    if activations not in (ASYMMETRIC, SYMMETRIC):
        raise unknown_name("kind of int8 activations", activations, (ASYMMETRIC, SYMMETRIC))
    plan = Lowering(precision, runtime, activations)  # type: ignore[arg-type]  # one of the literals, as was just checked
    if plan.symmetric and (precision, runtime) != ("int8", "openvino"):
        hint = "leave out --int8-activations: ONNX Runtime's inputs are asymmetric here, TensorRT's symmetric"
        raise InputError(f"symmetric activations are a choice of int8 for openvino, got {precision} for {runtime}", hint)
    if plan.precision not in PRECISIONS[runtime]:
        able = [name for name, precisions in PRECISIONS.items() if plan.precision in precisions]
        hint = f"--runtime {' or '.join(able)}" if able else "leave it fp32"
        if precision == "bf16" and runtime.startswith("trt"):
            hint = "leave it fp32, and compile with --engine-precision bf16"
        raise InputError(f"'{runtime}' computes in {', '.join(PRECISIONS[runtime])} here, not in {precision}", hint)
    if precision == "fp8" and opset < FP8_OPSET:
        raise InputError(f"fp8 needs opset {FP8_OPSET} or later, got {opset}", f"--opset {FP8_OPSET}")
    if plan.calibrates and runtime == "openvino":
        _require_nncf()
    if plan.needs_its_runtime:
        runner(runtime).availability().require(runtime)
    return plan


def _require_nncf() -> None:
    if importlib.util.find_spec("nncf") is None:
        raise MissingDependencyError("INT8 for OpenVINO needs the package nncf", "pip install 'vitdeploy[openvino]'")
