"""Where operators are timed: a runtime, and the precision that the model will have there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal, Self

import numpy as np
import onnx

from runtime.runners.openvino_cpu import properties
from runtime.runners.ort import session_options
from runtime.runners.registry import runner
from vitnla.common.errors import unknown_name

LatencyPrecision = Literal["fp32", "bf16", "int8"]
_PACKAGES = {"ort": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True)
class LatencyTarget:
    """A runtime and a precision. In `int8`, what the lowering for that runtime leaves in float is timed in float."""

    runtime: str = "ort"
    precision: LatencyPrecision = "fp32"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `ort`, `ort:int8`, `openvino`, `openvino:bf16`, `openvino:int8`.

        Raises:
            InputError: it is none of these.
        """
        found = {target.label: target for target in cls.known()}
        if text not in found:
            raise unknown_name("target of latency", text, found)
        return found[text]

    @classmethod
    def known(cls) -> tuple[Self, ...]:
        """All there are."""
        return cls(), cls("ort", "int8"), cls("openvino"), cls("openvino", "bf16"), cls("openvino", "int8")

    @property
    def label(self) -> str:
        """As it is typed."""
        return self.runtime if self.precision == "fp32" else f"{self.runtime}:{self.precision}"

    @property
    def int8(self) -> bool:
        """Whether linears are quantised."""
        return self.precision == "int8"

    @property
    def int8_scores(self) -> bool:
        """Whether the lowering also quantises Q K^T: NNCF's does."""
        return self.int8 and self.runtime == "openvino"

    def version(self) -> str:
        """Of the runtime's package."""
        self.require()
        return version(_PACKAGES[self.runtime])

    def require(self) -> None:
        """Refuse a runtime that is not installed.

        Raises:
            MissingDependencyError: it is not.
        """
        runner(self.runtime).availability().require(self.runtime)

    def open(self, graph: onnx.ModelProto, threads: int) -> Callable[[], object]:
        """A function that runs `graph` once on random inputs, with the options that bundles are run with."""
        rng = np.random.default_rng(0)
        feed = {
            given.name: rng.standard_normal([side.dim_value for side in given.type.tensor_type.shape.dim], np.float32)
            for given in graph.graph.input
        }
        if self.runtime == "ort":
            import onnxruntime

            session = onnxruntime.InferenceSession(
                graph.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
            )
            return lambda: session.run(None, feed)
        import openvino

        core = openvino.Core()
        model = core.read_model(graph.SerializeToString())
        request = core.compile_model(model, "CPU", properties(core, self.precision, threads, "latency")).create_infer_request()
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)


DEFAULT_TARGET = LatencyTarget()
"""ONNX Runtime in fp32."""
