"""Graphs at a lower precision: which nodes are lowered, and what rounding does to their values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.graph.files import save_model
from export.graph.inspect import value_types
from export.graph.parity import OnnxModel
from export.precision.cast import BF16, FORMATS, FP16, LowPrecision, to_bf16, to_fp16, to_precision
from export.precision.rounding import first_overflow, rounded
from runtime.bundle.schema import Bundle
from runtime.check.logits import relative_error
from vitnla.common.errors import VerdictError


@pytest.fixture
def model(tiny_bundle: Bundle) -> onnx.ModelProto:
    return onnx.load(tiny_bundle.model_path)


def chain(*nodes: onnx.NodeProto, **weights: np.ndarray) -> onnx.ModelProto:
    """A graph from `images` [N, 4] to `logits` [N, 4]."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("images", "logits")]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "chain", value[:1], value[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, images: np.ndarray, folder: Path) -> np.ndarray:
    save_model(model, folder / "model.onnx")
    return OnnxModel(folder / "model.onnx")(images)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_only_the_norms_stay_in_fp32(
    precision: LowPrecision, model: onnx.ModelProto, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    lowered = to_precision(model, precision)
    types = value_types(lowered)
    kind = FORMATS[precision].kind
    by_operator = {node.op_type: types[node.output[0]] for node in lowered.graph.node if node.op_type != "Cast"}
    assert by_operator["LayerNormalization"] == TensorProto.FLOAT
    assert {by_operator[name] for name in ("MatMul", "Gemm", "Softmax", "Add", "Gelu")} == {kind}
    assert by_operator["Conv"] == (kind if precision == "fp16" else TensorProto.FLOAT)  # ONNX has no bf16 Conv before opset 22
    images, logits = tiny_bundle.reference()
    assert 1e-5 < relative_error(run(rounded(lowered, FORMATS[precision]), images, tmp_path), logits) < 2e-2


def test_bf16_is_what_another_runtime_makes_of_it(model: onnx.ModelProto, tiny_bundle: Bundle, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    lowered = to_bf16(model)
    images, logits = tiny_bundle.reference()
    save_model(lowered, tmp_path / "bf16.onnx")
    compiled = openvino.Core().compile_model(str(tmp_path / "bf16.onnx"), "CPU", {"INFERENCE_NUM_THREADS": 1})
    other = compiled({"images": images})[0]
    assert relative_error(other, logits) < 5e-2
    assert relative_error(run(rounded(lowered, BF16), images, tmp_path), other) < 5e-2


def test_rounding_is_that_of_the_format(tmp_path: Path) -> None:
    """ONNX Runtime's own fp16 on a CPU skips casts between nodes, so 2^16 would survive; a GPU's does not."""
    node = [helper.make_node("Add", ["images", "b"], ["sum"], "add"), helper.make_node("Sub", ["sum", "b"], ["logits"], "sub")]
    graph = chain(*node, b=np.float32([60000.0, 1.0, 2048.0, 0.0]))
    images = np.float32([[60000.0, 1e-5, 1.0, 1.0 + 2**-9]])
    half = run(rounded(to_fp16(graph), FP16), images, tmp_path)
    np.testing.assert_array_equal(half, np.float32([[np.inf, 0.0, 0.0, 1.0 + 2**-9]]))
    brain = run(rounded(to_bf16(graph), BF16), images, tmp_path)
    assert np.isfinite(brain).all()
    assert brain[0, 3] == 1.0
    found = first_overflow(rounded(to_fp16(graph), FP16), FP16, graph, images, tmp_path / "largest.onnx")
    assert found is not None
    assert (found.node, found.operator, found.largest) == ("add", "Add", pytest.approx(1.2e5, rel=1e-3))
    assert first_overflow(rounded(to_bf16(graph), BF16), BF16, graph, images, tmp_path / "largest.onnx") is None


def test_a_weight_that_both_formats_read_is_there_twice(tmp_path: Path) -> None:
    norm = helper.make_node("LayerNormalization", ["images", "w"], ["normed"], "norm")
    graph = chain(norm, helper.make_node("Mul", ["normed", "w"], ["logits"], "mul"), w=np.float32([1e6, 2.0, 3.0, 4.0]))
    lowered = to_fp16(graph)
    weights = {one.name: numpy_helper.to_array(one) for one in lowered.graph.initializer}
    assert (weights["w"].dtype, weights["w_fp16"].dtype) == (np.float32, np.float16)
    assert (weights["w"][0], weights["w_fp16"][0]) == (1e6, 65504.0)  # saturated: what overflows is found where it is used


def test_a_value_of_unknown_type_is_refused() -> None:
    graph = chain(helper.make_node("Add", ["images", "nothing"], ["logits"], "add"))
    with pytest.raises(VerdictError, match="type of value 'nothing' cannot be inferred"):
        to_fp16(graph)
