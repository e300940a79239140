"""INT8 and FP8 for TensorRT: explicit Q/DQ around the linears; other types of the graph do not change.

TensorRT requires symmetric scales. ONNX Runtime's tools can write such INT8, but no usable FP8: they derive its scale from the
standard deviation, not the range, which gave DINOv2 ViT-S/14 28 % agreement (docs/precision.md has this module's).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graph.files import save_model
from export.precision.calibration import Calibration, input_magnitudes
from export.precision.cast import to_fp16
from export.precision.linears import encoder_linears, name_nodes
from export.precision.runtimes.base import OnStep, Quantizer
from runtime.bundle.schema import Quantization
from runtime.check.logits import mean_divergence
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.model.config import ViTConfig

Floats = NDArray[np.float32] | NDArray[np.float16]
Kind = Literal["int8", "fp8"]
_ELEMENT: dict[Kind, tuple[np.dtype, int, float]] = {
    "int8": (np.dtype(np.int8), onnx.TensorProto.INT8, 127.0),
    "fp8": (np.dtype(ml_dtypes.float8_e4m3fn), onnx.TensorProto.FLOAT8E4M3FN, 448.0),
}
"""NumPy type, ONNX type, and largest representable number."""


class TensorRtQuantizer(Quantizer):
    """Quantiser to `int8` and `fp8` for TensorRT and TensorRT for RTX; the rest of the graph computes in fp16."""

    def describe(self, target: RuntimePrecision, activations: str) -> str:
        """See `Quantizer`."""
        return f"{target.precision} symmetric: inputs per tensor by their largest value, weights per channel; the rest fp16, norms fp32"

    def quantize(
        self, path: Path, target: RuntimePrecision, activations: str, config: ViTConfig, calibration: Calibration, on_step: OnStep
    ) -> Quantization:
        """See `Quantizer`."""
        original = onnx.load(path)
        name_nodes(original)
        linears = encoder_linears(original, config)
        before = calibration.logits(path)
        with tempfile.TemporaryDirectory() as folder:
            named = Path(folder) / path.name
            save_model(original, named)
            magnitudes = input_magnitudes(named, linears, calibration.images)
        lowered = to_fp16(original)
        insert_qdq(lowered, magnitudes, "fp8" if target.precision == "fp8" else "int8")
        save_model(lowered, path)
        return Quantization(
            runtime=target.runtime, tool="vitdeploy", images=len(calibration.images), quantized=len(linears),
            scheme=self.describe(target, activations), divergence=mean_divergence(before, calibration.logits(path)),
        )  # fmt: skip


def insert_qdq(model: onnx.ModelProto, magnitudes: dict[str, float], kind: Kind) -> None:
    """Put Q/DQ at the input and the weight of the linears named, in place.

    A scale is max |x| / (largest number of the type): one for an input, one per output channel for a weight. Scales have the type of
    the tensor, so that DequantizeLinear returns the type that the product computes in.

    Args:
        model: graph with MatMul or Gemm nodes of those names, with constant weights; float32 or float16.
        magnitudes: largest |x| of each linear's input, by the node's name.
        kind: `int8`, or `fp8` (E4M3, from opset 21 on).
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    inputs: dict[str, str] = {}  # a tensor that several linears read is quantised once
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in magnitudes:
            data, weight = node.input[0], weights[node.input[1]]
            array = numpy_helper.to_array(weight)
            if data not in inputs:
                scale = np.asarray(magnitudes[node.name] / _ELEMENT[kind][2], array.dtype)
                inputs[data] = _quantize_input(graph, nodes, data, scale, kind)
            node.input[0] = inputs[data]
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            node.input[1] = _quantize_weight(graph, nodes, weight.name, array, 0 if transposed else 1, kind)
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
    del graph.value_info[:]


def _quantize_input(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], data: str, scale: Floats, kind: Kind) -> str:
    names = _parameters(graph, data, _positive(scale), kind)
    nodes.append(helper.make_node("QuantizeLinear", [data, *names], [f"{data}_quantized"], name=f"{data}_QuantizeLinear"))
    nodes.append(
        helper.make_node(
            "DequantizeLinear", [f"{data}_quantized", *names], [f"{data}_dequantized"], name=f"{data}_DequantizeLinear"
        )
    )
    return f"{data}_dequantized"


def _quantize_weight(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], name: str, weight: Floats, axis: int, kind: Kind
) -> str:
    element, _, largest = _ELEMENT[kind]
    values = weight.astype(np.float64)
    scale = np.abs(values).max(axis=1 - axis) / largest
    scale = _positive(scale.astype(weight.dtype))
    scaled = values / np.expand_dims(scale.astype(np.float64), 1 - axis)
    limited = np.clip(scaled, -largest, largest)
    quantized = (np.rint(limited) if kind == "int8" else limited).astype(element)
    graph.initializer.append(numpy_helper.from_array(quantized, f"{name}_quantized"))
    names = _parameters(graph, name, scale, kind)
    nodes.append(
        helper.make_node(
            "DequantizeLinear", [f"{name}_quantized", *names], [f"{name}_dequantized"], name=f"{name}_DequantizeLinear", axis=axis
        )
    )
    return f"{name}_dequantized"


def _positive(scale: Floats) -> Floats:
    """Replace zeros: a dead channel has no range, and a scale must not be 0."""
    smallest = np.finfo(np.float16).tiny if scale.dtype == np.float16 else np.finfo(np.float32).tiny
    return np.maximum(scale, scale.dtype.type(smallest))


def _parameters(graph: onnx.GraphProto, name: str, scale: Floats, kind: Kind) -> tuple[str, str]:
    """Add scale and zero point as initialisers; the zero point's type is the quantised type."""
    zero = helper.make_tensor(f"{name}_zero_point", _ELEMENT[kind][1], scale.shape, np.zeros(scale.size, _ELEMENT[kind][0]))
    graph.initializer.extend([numpy_helper.from_array(np.asarray(scale), f"{name}_scale"), zero])
    return f"{name}_scale", f"{name}_zero_point"
