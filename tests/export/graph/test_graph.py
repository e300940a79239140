"""Tracing, simplifying, and what must survive both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import export.graph.files
from export.graph.checks import check_graph, require_low_rank_pairs
from export.graph.files import save_model
from export.graph.inspect import initialiser_bytes, low_rank_pairs, operator_counts, require_standard_operators
from export.graph.parity import OnnxModel, measure_parity, torch_logits
from export.graph.simplify import simplify
from export.graph.trace import trace
from export.precision.cast import to_fp16
from runtime.check.logits import relative_error
from vitnla.common.errors import InputError, VerdictError
from vitnla.methods import Decomposition
from vitnla.model import VisionTransformer, ViTConfig

RANKS = [4, 6, 5, 4, 5]


@pytest.fixture(scope="module")
def low_rank(tiny_low_rank: Decomposition) -> VisionTransformer:
    return tiny_low_rank.model


@pytest.fixture(scope="module")
def traced(low_rank: VisionTransformer) -> onnx.ModelProto:
    return trace(low_rank)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(7, 1, 8, 8)).astype(np.float32)


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    """The first low-rank pair multiplied out to one dense MatMul, as a careless optimiser would."""
    model = copy(model)
    nodes, tensors = model.graph.node, {tensor.name: tensor for tensor in model.graph.initializer}
    pair = low_rank_pairs(model)[0]
    first = next(node for node in nodes if node.output[0] == pair.first)
    second = next(node for node in nodes if node.output[0] == pair.second)
    product = numpy_helper.to_array(tensors[first.input[1]]) @ numpy_helper.to_array(tensors[second.input[1]])
    model.graph.initializer.append(numpy_helper.from_array(product, "folded"))
    second.input[0], second.input[1] = first.input[0], "folded"
    nodes.remove(first)
    return model


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_the_traced_graph_has_the_opset_asked_for_and_equals_torch(
    low_rank: VisionTransformer, opset: int, images: np.ndarray, tmp_path: Path
) -> None:
    model = trace(low_rank, opset)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]
    save_model(model, tmp_path / "model.onnx")
    parity = measure_parity(OnnxModel(tmp_path / "model.onnx"), low_rank, images)
    assert parity.batches == (1, 2, 7)
    assert 0 < parity.max_rel < 1e-5


def test_attention_is_primitive_below_opset_23(traced: onnx.ModelProto) -> None:
    counts = operator_counts(traced)
    assert counts["Softmax"] == 2
    assert "Attention" not in counts


@pytest.mark.parametrize("opset", [17, 24])
def test_an_opset_out_of_range_names_the_range(low_rank: VisionTransformer, opset: int) -> None:
    with pytest.raises(InputError, match=f"from 18 to 23, got {opset}"):
        trace(low_rank, opset)


def test_the_graph_tells_nothing_of_the_machine_that_made_it(traced: onnx.ModelProto) -> None:
    assert str(Path(__file__).parents[3]).encode() not in traced.SerializeToString()


def test_tracing_prints_nothing(low_rank: VisionTransformer, capfd: pytest.CaptureFixture[str]) -> None:
    simplify(trace(low_rank), low_rank.config)
    assert capfd.readouterr() == ("", "")


def test_every_pair_survives_the_simplifier(traced: onnx.ModelProto, low_rank: VisionTransformer) -> None:
    simplified = simplify(copy(traced), low_rank.config)
    assert simplified.note.startswith("onnxsim ")
    assert len(simplified.model.graph.node) < len(traced.graph.node)
    assert [pair.rank for pair in low_rank_pairs(traced)] == RANKS
    assert [pair.rank for pair in low_rank_pairs(simplified.model)] == RANKS


def test_a_dense_model_has_no_pairs(tiny_model: VisionTransformer) -> None:
    assert low_rank_pairs(simplify(trace(tiny_model), tiny_model.config).model) == []


def test_a_folded_pair_is_detected(traced: onnx.ModelProto, low_rank: VisionTransformer) -> None:
    with pytest.raises(VerdictError, match="expected 5 low-rank pairs in the graph, got 4; missing: 1 of rank 4"):
        require_low_rank_pairs(folded(traced), low_rank.config)


def test_a_simplifier_that_folds_is_rejected_and_the_traced_graph_kept(
    traced: onnx.ModelProto, low_rank: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxsim.simplify", lambda model, **options: (folded(model), True))
    kept = simplify(traced, low_rank.config)
    assert kept.model is traced
    assert "was rejected: expected 5 low-rank pairs" in kept.note


def test_a_simplifier_that_crashes_is_noted(
    traced: onnx.ModelProto, low_rank: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(model: onnx.ModelProto, **options: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("onnxsim.simplify", crash)
    assert simplify(traced, low_rank.config).note.endswith("failed: first line")


def test_a_model_too_big_for_one_message_is_not_simplified(
    traced: onnx.ModelProto, low_rank: VisionTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.graph.files, "EXTERNAL_ABOVE", 1000)
    kept = simplify(traced, low_rank.config)
    assert kept.model is traced
    assert kept.note.startswith("none: ")


def test_a_static_batch_is_refused(traced: onnx.ModelProto, low_rank: VisionTransformer) -> None:
    model = copy(traced)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(VerdictError, match="expected the graph's only input to be images"):
        check_graph(model, low_rank.config)


def test_an_operator_of_another_domain_is_refused_even_inside_a_branch() -> None:
    branch = helper.make_graph(
        [helper.make_node("FusedGelu", ["x"], ["z"], domain="com.example")], "branch", [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    chosen = helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([chosen], "g", [], []))
    with pytest.raises(VerdictError, match=r"operator 'FusedGelu' of domain 'com\.example'"):
        require_standard_operators(model)


def test_two_linears_with_an_activation_between_are_no_pair() -> None:
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (("v", (8, 2)), ("u", (2, 8)))]
    for between, expected in (("Relu", []), ("Identity", [2])):
        nodes = [
            helper.make_node("MatMul", ["x", "v"], ["a"]), helper.make_node(between, ["a"], ["b"]),
            helper.make_node("Gemm", ["b", "u"], ["y"]),
        ]  # fmt: skip
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in "xy"]
        model = helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], weights))
        assert [pair.rank for pair in low_rank_pairs(model)] == expected


def test_weights_above_the_threshold_go_beside_the_model(
    traced: onnx.ModelProto, low_rank: VisionTransformer, images: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.graph.files, "EXTERNAL_ABOVE", initialiser_bytes(traced) - 1)
    files = save_model(copy(traced), tmp_path / "model.onnx")
    assert [file.name for file in files] == ["model.onnx", "model.onnx.data"]
    assert files[1].stat().st_size > 1024
    assert measure_parity(OnnxModel(files[0]), low_rank, images).max_rel < 1e-5


def test_an_invalid_model_is_not_accepted(traced: onnx.ModelProto, tmp_path: Path) -> None:
    model = copy(traced)
    model.graph.node[3].input[0] = "nothing"
    with pytest.raises(VerdictError, match=r"model\.onnx is not valid ONNX"):
        save_model(model, tmp_path / "model.onnx")


def test_fp16_keeps_its_interface_and_its_answers(
    traced: onnx.ModelProto, low_rank: VisionTransformer, images: np.ndarray, tmp_path: Path
) -> None:
    half = to_fp16(simplify(copy(traced), low_rank.config).model)
    check_graph(half, low_rank.config)
    assert half.graph.input[0].type.tensor_type.elem_type == half.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    types = {tensor.data_type for tensor in half.graph.initializer if len(tensor.dims) == 2}
    assert types == {TensorProto.FLOAT16}
    save_model(half, tmp_path / "half.onnx")
    error = relative_error(OnnxModel(tmp_path / "half.onnx")(images), torch_logits(low_rank, images))
    assert 1e-6 < error < 1e-2


def test_fp16_leaves_its_argument_alone(traced: onnx.ModelProto) -> None:
    before = traced.SerializeToString()
    to_fp16(traced)
    assert traced.SerializeToString() == before


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("head_hidden", [None, 12])
def test_every_shape_of_model_survives_tracing(
    tiny_config: ViTConfig, pooling: str, head_hidden: int | None, images: np.ndarray, tmp_path: Path
) -> None:
    changes = {
        "pooling": pooling,
        "head_hidden": head_hidden,
        "layer_scale": True,
        "class_token": pooling == "cls",
        "registers": 2,
    }
    model = VisionTransformer(tiny_config.model_copy(update=changes)).eval()
    simplified = simplify(trace(model), model.config)
    check_graph(simplified.model, model.config)
    save_model(simplified.model, tmp_path / "model.onnx")
    assert measure_parity(OnnxModel(tmp_path / "model.onnx"), model, images).max_rel < 1e-5
