"""INT8 and FP8 of the linears: what is quantised, how exactly, and who lost what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.bundle.loss_attribution import Predictions, loss_stage
from export.graph.parity import OnnxModel
from export.precision.request import plan_lowering
from export.precision.runtimes.tensorrt_qdq import Kind, insert_qdq
from export.precision.sensitivity import Sensitivity, sensitive_linears
from runtime.check.logits import mean_divergence
from vitnla.common.errors import InputError


def one_linear(weight: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["images", "weight"], ["logits"], name="linear")],
        "one linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", weight.shape[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", weight.shape[1]])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(("kind", "bound"), [("int8", 0.02), ("fp8", 0.1)])
def test_qdq_rounds_within_its_steps(tmp_path: Path, kind: Kind, bound: float) -> None:
    random = np.random.default_rng(0)
    weight, images = random.normal(size=(32, 8)).astype(np.float32), random.normal(size=(16, 32)).astype(np.float32)
    weight[:, 3] *= 1e-4  # a channel of its own scale must keep its own precision
    weight[:, 4] = 0
    model = one_linear(weight)
    insert_qdq(model, {"linear": float(np.abs(images).max())}, kind)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "model.onnx")
    found, exact = OnnxModel(tmp_path / "model.onnx")(images), images @ weight
    error = np.sqrt(np.square(found - exact).sum(0)) / np.maximum(np.sqrt(np.square(exact).sum(0)), 1e-12)
    assert error[4] == 0
    assert (error <= bound).all()
    assert (error[:4] > 0).all()
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert "weight" not in stored
    assert stored["weight_quantized"] == (TensorProto.INT8 if kind == "int8" else TensorProto.FLOAT8E4M3FN)


def test_the_divergence_is_zero_for_equal_logits_and_ignores_a_constant() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    assert mean_divergence(logits, logits) == 0
    assert mean_divergence(logits, logits + 3) == pytest.approx(0, abs=1e-6)
    p, q = np.array([[0.5, 0.5]]), np.array([[0.9, 0.1]])
    known = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)
    assert mean_divergence(np.log(p).astype(np.float32), np.log(q).astype(np.float32)) == pytest.approx(known, rel=1e-5)


def test_only_linears_that_hurt_much_stay_in_float_and_few_macs_at_that() -> None:
    measured = Sensitivity(1.0, {"small": 0.5, "harmless": 0.99, "large": 0.2})
    assert sensitive_linears(measured, {"small": 4, "harmless": 4, "large": 92}) == ("small",)


def test_a_stage_counts_flips_and_their_margins() -> None:
    labels = np.array([0, 1, 0])
    before = Predictions("a", np.log(np.array([[0.6, 0.4], [0.1, 0.9], [0.3, 0.7]], np.float32)))
    after = Predictions("b", np.log(np.array([[0.4, 0.6], [0.1, 0.9], [0.3, 0.7]], np.float32)))
    stage = loss_stage("precision", before, after, labels)
    assert (stage.lost, stage.gained, stage.flips) == (1, 0, 1)
    assert stage.lost_points == pytest.approx(100 / 3)
    assert stage.flip_margin == pytest.approx(0.2, abs=1e-6)
    assert stage.logit_error > 0
    assert loss_stage("runtime", after, after, labels).flip_margin is None


@pytest.mark.parametrize(
    ("precision", "runtime", "opset", "message"),
    [
        ("int7", "ort", 20, "int7"),
        ("int8", "abacus", 20, "abacus"),
        ("bf16", "ort", 20, "not in bf16"),
        ("fp8", "trt", 20, "fp8 needs opset 21"),
    ],
)
def test_what_cannot_be_lowered_is_refused(precision: str, runtime: str, opset: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_lowering(precision, runtime, opset)


@pytest.mark.parametrize(("precision", "runtime"), [("int8", "ort"), ("fp32", "openvino"), ("int8", "trt-rtx")])
def test_activations_are_a_choice_where_there_is_one(precision: str, runtime: str) -> None:
    with pytest.raises(InputError, match=f"a choice of int8 for openvino, got {precision} for {runtime}"):
        plan_lowering(precision, runtime, 20, "symmetric")
    with pytest.raises(InputError, match="unknown kind of int8 activations 'lopsided'"):
        plan_lowering(precision, runtime, 20, "lopsided")
    assert not plan_lowering(precision, runtime, 20).symmetric
