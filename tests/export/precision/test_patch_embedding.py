"""The patch embedding as a product: the same function, one more linear to quantise, and nothing done where it would not be the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.precision.linears import encoder_linears, head_linears
from export.precision.runtimes.patch_embedding import patches_as_product
from runtime.bundle.schema import Bundle
from vitnla.model import ViTConfig


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def _embedding(size: int = 8, stride: int = 4, pad: int = 0, kernel: int = 4) -> onnx.ModelProto:
    """Conv, Reshape, Transpose of 3 channels to 5 dims, the batch dynamic."""
    generator = np.random.default_rng(0)
    tensors = {"w": generator.normal(size=(5, 3, kernel, kernel)), "b": generator.normal(size=5)}
    side = (size + 2 * pad - kernel) // stride + 1
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["maps"], strides=[stride] * 2, pads=[pad] * 4, kernel_shape=[kernel] * 2),
        helper.make_node("Reshape", ["maps", "shape"], ["flat"]), helper.make_node("Transpose", ["flat"], ["y"], perm=[0, 2, 1]),
    ]  # fmt: skip
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()]
    initializers.append(numpy_helper.from_array(np.array([-1, 5, side * side]), "shape"))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", side * side, 5])], initializers,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_it_is_the_same_function_and_one_more_linear(tiny_bundle: Bundle, tiny_config: ViTConfig) -> None:
    model = onnx.load(tiny_bundle.model_path)
    images, expected = tiny_bundle.reference()
    product = patches_as_product(model)
    assert not any(node.op_type == "Conv" for node in product.graph.node)
    for count in (1, len(images)):
        np.testing.assert_allclose(_run(product, images[:count]), expected[:count], rtol=1e-5, atol=1e-5)
    before, after = encoder_linears(model, tiny_config), encoder_linears(product, tiny_config)
    assert len(after) == len(before) + 1
    weights = {tensor.name: list(tensor.dims) for tensor in product.graph.initializer}
    assert weights[after[0].input[1]] == [tiny_config.channels * tiny_config.patch_size**2, tiny_config.dim]
    assert [node.name for node in head_linears(product, tiny_config)] == [node.name for node in head_linears(model, tiny_config)]


def test_rows_are_in_the_order_of_the_tokens() -> None:
    model, images = _embedding(), np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    product = patches_as_product(model)
    assert not any(node.op_type == "Conv" for node in product.graph.node)
    np.testing.assert_allclose(_run(product, images), _run(model, images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{"stride": 2}, {"pad": 2}, {"size": 10}], ids=["overlap", "padding", "pixels left out"])
def test_what_is_no_plain_cut_into_patches_stays(changes: dict[str, int]) -> None:
    product = patches_as_product(_embedding(**changes))
    assert [node.op_type for node in product.graph.node] == ["Conv", "Reshape", "Transpose"]
