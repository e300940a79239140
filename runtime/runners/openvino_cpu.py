"""OpenVINO on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle.schema import Bundle, Precision
from runtime.runners.availability import Availability
from runtime.runners.base import Hint, Images, Logits, RunOptions, Session
from runtime.runners.traits import Traits
from vitnla.common.errors import InputError

_DEVICE = "CPU"
_HINTS: dict[Precision, tuple[str, str]] = {
    "fp32": ("FP32", "f32"), "fp16": ("FP16", "f16"), "bf16": ("BF16", "bf16"), "int8": ("FP32", "f32"),
    "int8-dynamic": ("FP32", "f32"), "fp8": ("FP32", "f32"),
}  # fmt: skip
"""Device capability and INFERENCE_PRECISION_HINT. In an INT8 graph the hint rules only what stays in floating point."""


def properties(core: Any, precision: Precision, threads: int, performance: Hint) -> dict[str, Any]:
    """Return the properties a model is compiled with; none is left to a default."""
    capability, hint = _HINTS[precision]
    supported = capability in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
    return {
        "PERFORMANCE_HINT": performance.upper(),
        "INFERENCE_PRECISION_HINT": hint if supported else "f32",
        "INFERENCE_NUM_THREADS": threads,
    }


class OpenVinoRunner:
    """OpenVINO runner of the unmodified `model.onnx`; every property that affects speed or precision is set explicitly."""

    name = "openvino"
    traits = Traits(
        packages=("openvino",), quantizer_packages=("nncf",), extra="openvino", export_precisions=("fp32", "bf16", "int8"),
        run_precisions=("fp32", "bf16"), run_precision_flags=("avx512_bf16", "amx_bf16"), timed_precisions=("fp32", "bf16", "int8"),
        runs_graph=True, tunable=True, needs_its_runtime=True,
    )  # fmt: skip
    """A bf16 bundle holds the fp32 graph, and bf16 is a hint, so it can also be requested at run time: `openvino:bf16`."""

    def availability(self) -> Availability:
        """Return whether `openvino` is installed."""
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

    def open_graph(
        self, graph: bytes, feed: Mapping[str, NDArray[np.float32]], precision: Precision, threads: int
    ) -> Callable[[], object]:
        """See `GraphRunner`."""
        import openvino

        core = openvino.Core()
        model = core.read_model(graph)
        request = core.compile_model(model, _DEVICE, properties(core, precision, threads, "latency")).create_infer_request()
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)


class OpenVinoSession(Session):
    """A model compiled for the given batch size; other sizes use a model of dynamic shape, compiled on first use.

    With a static shape OpenVINO fuses more and plans ahead. Its outputs may then differ from those of a dynamic one (see
    `export.precision.runtimes.openvino_nncf`), so accuracy must be measured at the timed batch size, as `bench` does.
    """

    def __init__(self, runner: str, bundle: Bundle, options: RunOptions) -> None:
        super().__init__(runner, bundle)
        import openvino

        self._core = openvino.Core()
        self._path = bundle.model_path
        self._properties = properties(self._core, options.precision or bundle.manifest.precision, options.threads, options.hint)
        self._batch = self.fixed_batch or options.batch
        self._compiled = self._compile(self._batch)
        self._dynamic: Any = None

    def _compile(self, batch: int | None) -> Any:
        try:
            model = self._core.read_model(self._path)
            if batch is not None:
                model.reshape([batch, *self._shape])
            return self._core.compile_model(model, _DEVICE, self._properties)
        except RuntimeError as error:
            hint = "export the bundle with another --opset or --precision"
            raise InputError(f"openvino: cannot compile {self._path}: {error}", hint) from error

    def _infer(self, images: Images) -> Logits:
        compiled = self._compiled
        if len(images) != self._batch:
            compiled = self._dynamic = self._dynamic or self._compile(None)
        return np.asarray(compiled({0: images}, share_inputs=True)[0], np.float32)

    def run_all(self, batches: Iterable[Images]) -> None:
        """Keep as many requests in flight as OpenVINO has streams."""
        import openvino

        queue = openvino.AsyncInferQueue(self._compiled)
        for images in batches:
            if len(images) == self._batch:
                queue.start_async({0: images})
            else:
                self.run(images)
        queue.wait_all()

    def facts(self) -> dict[str, Any]:
        """Return the version, and the properties as reported by OpenVINO."""
        import openvino

        read = self._compiled.get_property
        return {
            "version": openvino.__version__,
            "device": ", ".join(read("EXECUTION_DEVICES")),
            "precision": read("INFERENCE_PRECISION_HINT").to_string(),
            "threads": read("INFERENCE_NUM_THREADS"),
            "streams": read("NUM_STREAMS"),
            "performance_hint": read("PERFORMANCE_HINT"),
            "batch": self._batch,
            "io": "host arrays, input shared, output copied",
        }
