"""int8 in ONNX Runtime gives what its graph says, on any processor."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.runners.ort_options import new_session_options

CHANNELS, OUTPUTS = 64, 32


def quantised_linear(zero_point: NDArray[np.generic]) -> bytes:
    """A linear with int8 weights per channel and quantised inputs, as Q/DQ; one that the runtime computes in integers."""
    weight = np.random.default_rng(0).standard_normal((CHANNELS, OUTPUTS)).astype(np.float32)
    scale = np.abs(weight).max(0) / 127
    constants = {
        "weight": np.round(weight / scale).astype(np.int8), "scale": scale, "zeros": np.zeros(OUTPUTS, np.int8),
        "input_scale": np.float32(3 / 127), "zero_point": zero_point,
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "input_scale", "zero_point"], ["integers"]),
        helper.make_node("DequantizeLinear", ["integers", "input_scale", "zero_point"], ["input"]),
        helper.make_node("DequantizeLinear", ["weight", "scale", "zeros"], ["matrix"], axis=1),
        helper.make_node("MatMul", ["input", "matrix"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "linear", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", CHANNELS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", OUTPUTS])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("zero_point", [np.uint8(128), np.int8(0)])
def test_int8_products_do_not_overflow(zero_point: np.generic) -> None:
    model = quantised_linear(np.asarray(zero_point))
    images = 1.5 * np.abs(np.random.default_rng(1).standard_normal((16, CHANNELS))).astype(np.float32)
    in_float = onnxruntime.SessionOptions()
    in_float.add_session_config_entry("session.disable_quant_qdq", "1")
    answers = [
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]
        for options in (in_float, new_session_options())
    ]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5 * np.abs(answers[0]).max())
