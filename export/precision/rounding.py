"""Emulation of a 16-bit graph in float32 with every value rounded: runs on any CPU, and no optimiser skips a rounding."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from export.graph.files import save_model
from export.graph.inspect import value_types
from export.graph.trace import INPUT
from export.precision.float16 import Format
from runtime.runners.base import Images
from runtime.runners.ort_options import new_session_options

_EXACT, _LARGEST = "_exact", "_largest"


@dataclass(frozen=True)
class Overflow:
    """The first value of a graph beyond the range of its format."""

    node: str
    operator: str
    place: str
    """`blocks.3.mlp.fc1`, or `blocks.3` for a node without parameters of its own."""
    largest: float

    def __str__(self) -> str:
        return f"{self.operator} {self.node} at {self.place} reaches {self.largest:.3g}"


def rounded(model: onnx.ModelProto, target: Format) -> onnx.ModelProto:
    """Return a float32 copy of a graph of `lower` that rounds the result of every node in the target format, as hardware does."""
    low = {name for name, kind in value_types(model).items() if kind == target.kind}
    made = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    made.graph.name = model.graph.name
    made.graph.input.extend(model.graph.input)
    made.graph.output.extend(model.graph.output)
    made.graph.initializer.extend(_in_fp32(one) if one.name in low else one for one in model.graph.initializer)
    for node in model.graph.node:
        copied = made.graph.node.add()
        copied.CopyFrom(node)
        for place, name in enumerate(node.output):
            if name in low:
                copied.output[place] = name + _EXACT
                made.graph.node.extend(_round(name, target))
        if copied.op_type == "Cast" and node.output[0] in low:
            copied.op_type = "Identity"
            del copied.attribute[:]
    return made


def first_overflow(
    model: onnx.ModelProto, target: Format, source: onnx.ModelProto, images: Images, scratch: Path
) -> Overflow | None:
    """Find the first node whose result is beyond the range of the format; `None` if there is none.

    Args:
        model: a graph of `rounded`; it is changed.
        target: the format.
        source: the graph before it was lowered, whose weights have their original names.
        images: [N, C, H, W]; they are run one at a time, so that memory stays small.
        scratch: where a file may be written.
    """
    graph = model.graph
    exact = {name: node for node in graph.node for name in node.output if name.endswith(_EXACT)}
    for name in exact:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}_abs"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}_abs"], [name + _LARGEST], keepdims=0))
    del graph.output[:]
    graph.output.extend(helper.make_tensor_value_info(name + _LARGEST, TensorProto.FLOAT, []) for name in exact)
    save_model(model, scratch)
    options = new_session_options()
    session = onnxruntime.InferenceSession(scratch, options, providers=["CPUExecutionProvider"])
    found = np.array([session.run(None, {INPUT: images[i : i + 1]}) for i in range(len(images))], np.float32).max(0)
    for node, largest in zip(exact.values(), found, strict=True):
        if not largest <= target.largest:
            return Overflow(node.name, node.op_type, _place(source, node.name), float(largest))
    return None


def _round(name: str, target: Format) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    there = helper.make_node("Cast", [name + _EXACT], [f"{name}_rounded"], name=f"round_{name}", to=target.kind)
    return there, helper.make_node("Cast", [f"{name}_rounded"], [name], name=f"back_{name}", to=TensorProto.FLOAT)


def _in_fp32(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _place(model: onnx.ModelProto, node_name: str) -> str:
    """Return the location of a node: the layer whose parameters it reads or whose bias is added to it, else the block before."""
    place = "the input"
    for node in model.graph.node:
        if layer := _layer(node):
            place = layer
        if node.name == node_name:
            readers = [
                _layer(reader) for reader in model.graph.node if reader.op_type == "Add" and node.output[0] in reader.input
            ]
            block = re.match(r"blocks\.\d+", place)
            return layer or next(filter(None, readers), block[0] if block else place)
    return place


def _layer(node: onnx.NodeProto) -> str | None:
    """Return the layer whose weight or bias a node reads; transposed MatMul weights have lost their names."""
    named = [name for name in node.input if re.search(r"\.(weight|bias)$", name)]
    return named[0].rpartition(".")[0] if named else None
