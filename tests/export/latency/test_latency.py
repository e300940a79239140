"""The model of what operators cost in time: its fit, its measurement, and the choice that follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

import export.latency.measure as latency
from export.bundle.plan import ExportOptions
from export.latency.measure import cached_latency
from export.latency.operators import activation_graph, attention_graph, int8_linear_graph, linear_graph
from export.latency.target import latency_targets, parse_latency_target
from export.pipeline import ExportRequest, export_model
from runtime.runners.runtime_precision import ORT_FP32
from vitnla.allocation.latency_model import LatencyModel, activation_terms, attention_terms, fit_terms, linear_terms
from vitnla.calibration.collect import collect
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods.auto.apply import apply
from vitnla.methods.auto.config import AutoConfig
from vitnla.model import ViTConfig
from vitnla.model.checkpoint import save_checkpoint
from vitnla.model.config import BlockConfig, Ranks
from vitnla.sources.description import write_description
from vitnla.sources.source_model import SourceModel
from vitnla.training.initialise import new_model

SHAPE = ViTConfig.uniform(image_size=8, patch_size=4, channels=1, classes=10, dim=32, depth=2, heads=2)
BLOCK = SHAPE.blocks[0]
prices = st.tuples(*[st.floats(0.01, 100)] * 3)


def model(linear: tuple[float, ...] = (0.0, 1.0, 0.0, 0.0, 0.0), attention: tuple[float, ...] = (0.0,) * 4) -> LatencyModel:
    return LatencyModel(
        runtime="none", processor="none", threads=1, batch=2, linear=linear, attention=attention, activation=(0.0, 0.0), error=0
    )


@given(prices)
def test_a_fit_finds_the_prices_that_times_were_made_with(made: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    terms = rng.uniform(1, 1000, (12, 3))
    found, errors = fit_terms(terms, terms @ made)
    np.testing.assert_allclose(found, made, rtol=1e-6)
    assert errors.max() < 1e-9


def test_a_price_is_never_negative_and_an_error_is_relative() -> None:
    terms = np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    found, errors = fit_terms(terms, np.array([3.0, 2.0, 1.0]))
    assert min(found) == 0.0
    assert errors.max() == pytest.approx(max(abs(terms @ found - [3, 2, 1]) / [3, 2, 1]))


def test_terms_count_what_an_operator_does() -> None:
    assert linear_terms(10, 3, 4) == (1.0, 120, 30, 40, 12)
    assert attention_terms(2, 3, 5, 4, 6) == (1.0, 2 * 3 * 25 * 10, 2 * 3 * 25, 2 * 3 * 5 * 20)
    assert activation_terms(7) == (1.0, 7)


def test_by_macs_alone_a_block_costs_its_macs_and_a_pair_what_its_rank_says() -> None:
    dim, rows = SHAPE.dim, 2 * SHAPE.tokens
    assert model().attention_ns(BLOCK, dim, SHAPE.tokens) == rows * (32 * 96 + 32 * 32)
    assert model().mlp_ns(BLOCK, dim, SHAPE.tokens) == rows * 2 * 32 * 128
    pair = BLOCK.model_copy(update={"ranks": Ranks(fc1=8)})
    assert model().mlp_ns(pair, dim, SHAPE.tokens) == rows * (8 * (32 + 128) + 32 * 128)


def test_two_calls_cost_more_than_one_of_as_many_macs() -> None:
    """What MACs do not see: rank 16 of 32 x 32 has the MACs of the dense linear, and twice its calls."""
    pair = BLOCK.model_copy(update={"ranks": Ranks(proj=16)})
    timed = model(linear=(5.0, 1.0, 0.0, 0.0, 0.0))
    assert timed.attention_ns(pair, 32, SHAPE.tokens) == timed.attention_ns(BLOCK, 32, SHAPE.tokens) + 5


@pytest.mark.parametrize(
    ("graph", "shape"),
    [
        (linear_graph(2, 5, 8, 12), (2, 5, 12)),
        (attention_graph(2, 5, 3, 4, 6), (2, 5, 18)),
        (int8_linear_graph(2, 5, 8, 12), (10, 12)),
        (attention_graph(2, 5, 3, 4, 6, int8=True), (2, 5, 18)),
        (activation_graph(2, 5, 7), (2, 5, 7)),
    ],
)
def test_a_measured_graph_is_valid_and_computes_every_copy(
    graph: onnx.ModelProto, shape: tuple[int, ...], tmp_path: Path
) -> None:
    onnx.checker.check_model(graph, full_check=True)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {given.name: np.ones(given.shape, np.float32) * index for index, given in enumerate(session.get_inputs())}
    outputs = session.run(None, feed)
    assert [output.shape for output in outputs] == [shape] * 4
    # ONNX Runtime must not have found out that two of them are the same.
    heavy = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node if node.op_type in {"Softmax", "Gelu"}]
    assert len(heavy) in (0, 4)


def test_attention_is_what_torch_computes() -> None:
    torch = pytest.importorskip("torch")
    session = onnxruntime.InferenceSession(attention_graph(2, 5, 3, 4, 6).SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {given.name: rng.standard_normal(given.shape, np.float32) for given in session.get_inputs()}
    q, k, v = (torch.from_numpy(feed[f"{part}_in0"]).unflatten(2, (3, -1)).transpose(1, 2) for part in "qkv")
    expected = ((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2)
    np.testing.assert_allclose(session.run(["y0"], feed)[0], expected.numpy(), rtol=1e-5, atol=1e-6)


def test_it_is_measured_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path))
    monkeypatch.setattr(latency, "ROUNDS", 2)
    monkeypatch.setattr(latency, "ROUND_S", 0.0)
    rounds: list[tuple[int, int]] = []
    first = cached_latency(SHAPE, ORT_FP32, 2, 1, lambda done, total: rounds.append((done, total)))
    assert rounds == [(1, 2), (2, 2)]
    assert first.attention_ns(BLOCK, SHAPE.dim, SHAPE.tokens) > 0
    assert cached_latency(SHAPE, ORT_FP32, 2, 1, lambda done, total: rounds.append((done, total))) == first
    assert len(rounds) == 2
    assert cached_latency(SHAPE, ORT_FP32, 3, 1).batch == 3
    assert LatencyModel.model_validate_json(first.to_json()) == first


def test_every_target_is_measured_and_kept_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path))
    monkeypatch.setattr(latency, "ROUNDS", 1)
    monkeypatch.setattr(latency, "ROUND_S", 0.0)
    assert [target.label for target in latency_targets()] == ["ort", "ort:int8", "openvino", "openvino:bf16", "openvino:int8"]
    for target in latency_targets():
        assert parse_latency_target(target.label) == target
        if target.runtime == "openvino":
            pytest.importorskip("openvino", reason="openvino is not installed: pip install vitdeploy[openvino]")
        model = cached_latency(SHAPE, target, 1, 1)
        assert model.runtime.startswith(f"{target.label} ")
        assert model.mlp_ns(BLOCK, SHAPE.dim, SHAPE.tokens) > 0
    with pytest.raises(InputError, match="unknown target of latency 'ort:bf16'"):
        parse_latency_target("ort:bf16")


def test_an_int8_linear_is_one_quantised_product(tmp_path: Path) -> None:
    """Each copy rounds for itself, as each linear of a model does."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    graph = int8_linear_graph(2, 5, 8, 12).SerializeToString()
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    made = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert made.count("QGemm") == made.count("QuantizeLinear") == 4


def test_auto_keeps_to_a_target_of_time() -> None:
    dense = new_model(SHAPE, seed=1).eval()
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
    statistics = collect(dense, images, Preprocessing(image_size=8, mean=(0.5,), std=(0.25,)))
    costs = model(linear=(10.0, 0.01, 0.0, 0.1, 0.0), attention=(0.0, 0.02, 0.5, 0.0))

    def total(blocks: tuple[BlockConfig, ...]) -> float:
        return sum(costs.attention_ns(b, 32, SHAPE.tokens) + costs.mlp_ns(b, 32, SHAPE.tokens) for b in blocks)

    config = AutoConfig(target_latency=0.6, latency_model=costs)
    found = apply(dense, statistics, config).model
    assert 0.5 < total(found.config.blocks) / total(SHAPE.blocks) <= 0.6
    assert AutoConfig.model_validate_json(config.to_json()) == config
    with pytest.raises(InputError, match="needs a latency model"):
        apply(dense, statistics, AutoConfig(target_latency=0.6))
    with pytest.raises(InputError, match="target latency: expected a ratio from"):
        apply(dense, statistics, AutoConfig(target_latency=0.01, latency_model=costs))
    with pytest.raises(InputError, match="expected one of target_macs and target_latency"):
        AutoConfig(target_macs=0.5, target_latency=0.6)
    assert AutoConfig().target_macs == 0.55


def test_an_export_measures_what_its_target_is_about(
    tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's batch size reaches the measurement; the prices reach the manifest, but not the bundle's name."""
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(latency, "ROUNDS", 1)
    monkeypatch.setattr(latency, "ROUND_S", 0.0)
    monkeypatch.setattr("export.pipeline.load_data", lambda spec, class_map=None: tiny_data)
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tiny_source.model, tmp_path / "dense")
    write_description(tmp_path / "dense", tiny_source.preprocessing, tiny_source.labels)
    settings = {"target_latency": 1.0, "width_multiple": 2}
    request = ExportRequest("dense", "tiny", "auto", settings, None, ExportOptions(), "test", latency_batch=3, latency_threads=1)
    bundle = export_model(request, lambda step: None)
    assert bundle.folder == Path("artifacts/dense-auto-1.0-2")
    config = AutoConfig.model_validate(bundle.manifest.method_config)
    assert config.latency_model is not None
    assert (config.latency_model.batch, config.latency_model.threads, config.target_macs) == (3, 1, None)
