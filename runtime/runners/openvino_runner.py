"""OpenVINO on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import Any

import numpy as np

from runtime.bundle import Bundle, Precision
from runtime.runners.base import Availability, Images, Logits, RunOptions, Session
from vitnla.common.errors import InputError

_DEVICE = "CPU"
_HINTS: dict[Precision, tuple[str, str]] = {
    "fp32": ("FP32", "f32"), "fp16": ("FP16", "f16"), "bf16": ("BF16", "bf16"), "int8": ("FP32", "f32"),
    "int8-dynamic": ("FP32", "f32"), "fp8": ("FP32", "f32"),
}  # fmt: skip
"""Device capability and INFERENCE_PRECISION_HINT. In an INT8 graph the hint rules only what stays in floating point."""


class OpenVinoRunner:
    """Reads `model.onnx` as it is; every property that changes speed or precision is set, never left to a default."""

    name = "openvino"

    def availability(self) -> Availability:
        """Whether `openvino` is installed."""
        if importlib.util.find_spec("openvino") is None:
            return Availability(False, "the package openvino is not installed", "pip install 'vitdeploy[openvino]'")
        return Availability(True)

    def imports(self) -> None:
        """Import OpenVINO and its CPU plug-in."""
        import openvino

        openvino.Core().get_property(_DEVICE, "FULL_DEVICE_NAME")

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        """Compile the bundle's graph for the CPU.

        Raises:
            InputError: OpenVINO cannot read or compile the graph.
            MissingDependencyError: OpenVINO is not installed.
        """
        self.availability().require(self.name)
        return OpenVinoSession(self.name, bundle, options)


class OpenVinoSession(Session):
    """A compiled model, with a dynamic batch unless the graph has a fixed one."""

    def __init__(self, runner: str, bundle: Bundle, options: RunOptions) -> None:
        super().__init__(runner, bundle)
        import openvino

        core = openvino.Core()
        capability, hint = _HINTS[bundle.manifest.precision]
        supported = capability in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        properties = {
            "PERFORMANCE_HINT": options.hint.upper(),
            "INFERENCE_PRECISION_HINT": hint if supported else "f32",
            "INFERENCE_NUM_THREADS": options.threads,
        }
        try:
            self._compiled = core.compile_model(bundle.model_path, _DEVICE, properties)
        except RuntimeError as error:
            hint = "export the bundle with another --opset or --precision"
            raise InputError(f"openvino: cannot compile {bundle.model_path}: {error}", hint) from error

    def _infer(self, images: Images) -> Logits:
        return np.asarray(self._compiled({0: images}, share_inputs=True)[0], np.float32)

    def run_all(self, batches: Iterable[Images]) -> None:
        """Keep as many requests in flight as OpenVINO has streams."""
        import openvino

        queue = openvino.AsyncInferQueue(self._compiled)
        for images in batches:
            queue.start_async({0: images})
        queue.wait_all()

    def facts(self) -> dict[str, Any]:
        """Version, and the properties as OpenVINO reports them back."""
        import openvino

        read = self._compiled.get_property
        return {
            "version": openvino.__version__,
            "device": ", ".join(read("EXECUTION_DEVICES")),
            "precision": read("INFERENCE_PRECISION_HINT").to_string(),
            "threads": read("INFERENCE_NUM_THREADS"),
            "streams": read("NUM_STREAMS"),
            "performance_hint": read("PERFORMANCE_HINT"),
            "batch": self.fixed_batch or "dynamic",
            "io": "host arrays, input shared, output copied",
        }
