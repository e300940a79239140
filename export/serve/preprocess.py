"""Preprocessing graph: the first step of the ensemble, if the bundle's own graph does not take pixels."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from export.graph.preprocessing import embed
from export.graph.trace import OUTPUT
from runtime.bundle.schema import Bundle, TensorSpec
from vitnla.data.pixel_map import pixel_map
from vitnla.data.preprocessing import Preprocessing

_IR_VERSION, _OPSET = 8, 17  # old enough for every ONNX Runtime backend that is in use


def preprocess_specs(bundle: Bundle) -> tuple[TensorSpec, TensorSpec]:
    """Return the input, uint8 [batch, side, side, C], and the output, which is the input of the bundle's graph."""
    given = bundle.manifest.input
    batch, channels, height, width = given.shape
    return (
        TensorSpec(name="pixels", dtype="uint8", shape=(batch, height, width, channels)),
        TensorSpec(name=OUTPUT, dtype="float32", shape=given.shape),
    )


def preprocess_graph(bundle: Bundle) -> onnx.ModelProto:
    """Return a graph that scales, normalises and transposes, by the operators of `--embed-preprocessing`."""
    specs = preprocess_specs(bundle)
    preprocessing = Preprocessing.model_validate(bundle.manifest.preprocessing)
    side = preprocessing.image_size
    name = specs[0].name
    nothing = helper.make_graph(
        [helper.make_node("Identity", [name], [OUTPUT])], "preprocess",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(specs[1].shape))],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, list(specs[1].shape))],
    )  # fmt: skip
    model = helper.make_model(nothing, ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", _OPSET)])
    made = embed(model, pixel_map(preprocessing, (side, side)), specs)
    onnx.checker.check_model(made, full_check=True)
    return made
