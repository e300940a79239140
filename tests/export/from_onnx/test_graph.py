"""Finding the linears of a graph, measuring what they see, and rewriting them, against the same on the model in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from export.from_onnx import calibrate
from export.from_onnx.blocks import find_mlps
from export.from_onnx.calibrate import collect, encoder_linears
from export.from_onnx.decompose import GRAPH_EDITS, Encoder, GraphDecomposition
from export.from_onnx.decompose import decompose as decompose_graph
from export.from_onnx.linears import after_weights, find_linears
from export.from_onnx.sensitivity import sensitivities
from export.from_onnx.session import GraphSession
from export.from_onnx.source import OnnxSource, read_source
from runtime.check.logits import relative_error
from tests.helpers.onnx_graphs import CHANNELS, CLASSES, DIM, EXPORTERS, HIDDEN, SIZE, SOURCES, linear_graph, tiny, write_graph
from vitnla.calibration.collect import collect as collect_in_torch
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.methods.registry import make_config

IMAGE, TOKENS = (CHANNELS, SIZE, SIZE), 5
PREPROCESSING = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.6), std=(0.25, 0.3, 0.2))
PIXELS = np.random.default_rng(5).integers(0, 256, (40, SIZE, SIZE, CHANNELS), np.uint8)
Graphs = Callable[..., OnnxSource]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """The tiny sources, each exported once."""
    folder, known = tmp_path_factory.mktemp("graphs"), {}

    def graph(source: str, exporter: str, batch: int | None = None) -> OnnxSource:
        path = folder / f"{source}-{exporter}-{batch}.onnx"
        if path not in known:
            known[path] = read_source(f"onnx:{write_graph(path, source, exporter, batch)}")
        return known[path]

    return graph


def decompose(source: OnnxSource, method: str, **settings: object) -> tuple[ir.Model, GraphDecomposition]:
    """The rewritten graph."""
    model = source.model.clone()
    linears = encoder_linears(source, model, IMAGE)
    moments = collect(source, linears, PIXELS, PREPROCESSING)
    config = METHODS[method].config.model_validate(settings)
    seen = {one.linear: moments[str(one.linear.x.name)] for one in linears}
    return model, decompose_graph(Encoder.of(model, linears), method, seen, config)


def test_every_method_that_works_on_graphs_has_an_edit() -> None:
    assert {name for name in METHODS if METHODS[name].works_on_graphs} == set(GRAPH_EDITS)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("source", SOURCES)
def test_every_linear_is_found_in_its_place(graphs: Graphs, source: str, exporter: str) -> None:
    model = graphs(source, exporter).model.clone()
    linears = encoder_linears(graphs(source, exporter), model, IMAGE)
    encoder = Encoder.of(model, linears)
    attention = ["qkv", "proj"] if source == "ours" else ["q", "k", "v", "proj"]
    names = [str(encoder.places[one.linear]) for one in linears]
    expected = [f"block {block} {name}" for block in (0, 1) for name in (*attention, "fc1", "fc2")]
    assert sorted(names) == sorted(expected)
    assert names[-2:] == ["block 1 fc1", "block 1 fc2"]
    assert all(one.tokens == TOKENS for one in linears)
    shapes = {"qkv": (3 * DIM, DIM), "fc1": (HIDDEN, DIM), "fc2": (DIM, HIDDEN)}
    for one in linears:
        assert one.linear.shape == shapes.get(encoder.places[one.linear].linear, (DIM, DIM))
    assert len(encoder.mlps) == 2
    # The head is a linear too, but sees one token.
    assert CLASSES in [linear.shape[0] for linear in find_linears(model)]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("source", ["vit", "dinov2"])
def test_weights_and_moments_are_those_of_the_torch_modules(graphs: Graphs, source: str, exporter: str) -> None:
    found = graphs(source, exporter)
    linears = encoder_linears(found, found.model.clone(), IMAGE)
    moments = collect(found, linears, PIXELS, PREPROCESSING)
    inputs: dict[nn.Module, torch.Tensor] = {}
    modules = [module for module in tiny(source).modules() if isinstance(module, nn.Linear) and module.out_features != CLASSES]
    hooks = [module.register_forward_hook(lambda module, given, _: inputs.update({module: given[0]})) for module in modules]
    with torch.no_grad():
        tiny(source)(torch.from_numpy(PREPROCESSING(PIXELS)))
    for hook in hooks:
        hook.remove()
    assert len(linears) == len(modules)
    for one in linears:
        module = next(m for m in modules if np.array_equal(m.weight.detach().numpy(), one.linear.map.weight))
        assert np.array_equal(one.linear.map.bias, module.bias.detach().numpy())
        x = inputs[module].reshape(-1, module.in_features).double().numpy()
        seen = moments[str(one.linear.x.name)]
        assert seen.tokens == len(PIXELS) * TOKENS == len(x)
        assert np.allclose(seen.gram, x.T @ x / len(x), rtol=1e-4, atol=1e-5 * np.abs(seen.gram).max())
        assert np.allclose(seen.mean, x.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [None, 3])
def test_bounded_memory_changes_nothing(graphs: Graphs, batch: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several passes over several groups of values, and a last batch that is not full (or left out, where it is fixed)."""
    source = graphs("vit", "torchscript", batch)
    linears = encoder_linears(source, source.model.clone(), IMAGE)
    whole = collect(source, linears, PIXELS[:39], PREPROCESSING)
    steps: list[int] = []
    monkeypatch.setattr(calibrate, "MEMORY", 5000)
    parts = collect(source, linears, PIXELS[: 40 if batch else 39], PREPROCESSING, lambda done, total: steps.append(done))
    assert len(steps) > 13
    assert steps == sorted(steps)
    assert steps[-1] == 39
    assert whole.keys() == parts.keys()
    for name, moments in whole.items():
        assert parts[name].tokens == moments.tokens
        assert np.allclose(parts[name].gram, moments.gram, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("svd", {"rank": 5, "weighting": "none"}), ("svd", {"rank": 5, "weighting": "gram"}), ("svd", {"rank": 5}),
        ("svd", {"rank": 5, "weighting": "cholesky"}), ("svd", {"energy": 0.9, "rank_multiple": 1}),
        ("svd", {"target_macs": 0.6, "allocation": "uniform", "rank_multiple": 1}),
        ("cholesky", {"keep": 0.5}), ("cholesky", {"target_macs": 0.8}), ("none", {}),
    ],
)  # fmt: skip
def test_on_the_graph_is_as_on_the_checkpoint(graphs: Graphs, exporter: str, method: str, settings: dict[str, object]) -> None:
    model = tiny("ours")
    statistics = collect_in_torch(model, PIXELS, PREPROCESSING)
    torch_method = METHODS[method]
    expected = torch_method.apply(model, statistics, make_config(torch_method, settings))
    rewritten, found = decompose(graphs("ours", exporter), method, **settings)
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        assert (ours.block, ours.linear, ours.rank, ours.shape) == (theirs.block, theirs.linear, theirs.rank, theirs.shape)
        assert (ours.macs, ours.parameters, ours.full_rank) == (theirs.macs, theirs.parameters, theirs.full_rank)
        assert ours.relative_error == pytest.approx(theirs.relative_error, rel=1e-3, abs=1e-9)
        assert ours.retained_energy == pytest.approx(theirs.retained_energy, rel=1e-5)
    images = PREPROCESSING(PIXELS[:9])
    with torch.no_grad():
        reference = expected.model(torch.from_numpy(images)).numpy()
    assert relative_error(GraphSession(rewritten, None)(images), reference) < 1e-5
    assert found.exact == (method == "none")


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("method", "settings"), [("svd", {"rank": 5}), ("cholesky", {"keep": 0.5})])
def test_everything_else_stays_as_it_was(
    graphs: Graphs, source: str, exporter: str, method: str, settings: dict[str, object]
) -> None:
    given = graphs(source, exporter)
    linears = find_linears(given.model)
    touched = {node.outputs[0].name for linear in linears for node in (linear.node, linear.add) if node is not None}
    rewritten, _ = decompose(given, method, **settings)
    before, after = ir.to_proto(given.model).graph, ir.to_proto(rewritten).graph
    known = {node.output[0]: node for node in after.node}
    order = [node.output[0] for node in after.node if node.output[0] in {old.output[0] for old in before.node}]
    dropped = {node.output[0] for node in before.node} - known.keys()
    assert order == [node.output[0] for node in before.node if node.output[0] in known]
    assert all(node.op_type == "Identity" for node in before.node if node.output[0] in dropped)
    for node in before.node:
        if node.output[0] in dropped:
            continue
        new = known[node.output[0]]
        assert (new.op_type, new.name, list(new.attribute), list(new.output)) == (
            node.op_type, node.name, list(node.attribute), list(node.output),
        )  # fmt: skip
        if node.output[0] not in touched:
            assert new == node
    weights = {tensor.name: tensor for tensor in before.initializer}
    kept = [tensor for tensor in after.initializer if tensor.name in weights]
    assert all(tensor == weights[tensor.name] for tensor in kept)
    assert list(after.input) == list(before.input)
    assert list(after.output) == list(before.output)
    # And the graph that was given was not touched.
    assert ir.to_proto(given.model).graph == before
    onnx.checker.check_model(ir.to_proto(rewritten), full_check=True)


def test_full_rank_cuts_nothing_and_unused_weights_go(graphs: Graphs) -> None:
    given = graphs("vit", "dynamo")
    images = PREPROCESSING(PIXELS[:4])
    whole, found = decompose(given, "svd", energy=1.0)
    assert found.exact
    assert np.array_equal(GraphSession(whole, None)(images), GraphSession(given.model, None)(images))
    low, _ = decompose(given, "svd", rank=4)
    sizes = [sum(value.const_value.nbytes for value in model.graph.initializers.values()) for model in (given.model, low)]
    assert sizes[1] < 0.75 * sizes[0]


def test_noise_weighs_linears_as_gradients_do(graphs: Graphs) -> None:
    source = graphs("ours", "dynamo")
    linears = encoder_linears(source, source.model.clone(), IMAGE)
    moments = collect(source, linears, PIXELS, PREPROCESSING)
    found = np.array(sensitivities(source, linears, moments, PREPROCESSING(PIXELS)))
    expected = [one.sensitivity for one in collect_in_torch(tiny("ours"), PIXELS, PREPROCESSING).linears.values()]
    assert np.all(np.abs(np.log(found / expected)) < np.log(2))
    assert np.corrcoef(np.log(found), np.log(expected))[0, 1] > 0.9


W = np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)  # [in, out]
B = np.arange(4, dtype=np.float32)
BIAS = "b = Constant<value_floats=[0.0, 1.0, 2.0, 3.0]>()"


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (W, f"{BIAS} m = MatMul(x, w) y = Add(m, b)"),
        (W, f"{BIAS} m = MatMul(x, w) y = Add(b, m)"),
        (W.T, f"{BIAS} t = Transpose<perm=[1, 0]>(w) m = MatMul(x, t) y = Add(m, b)"),
        (W.T, f"{BIAS} t = Transpose(w) i = Identity(t) m = MatMul(x, i) c = Identity(b) y = Add(m, c)"),
        (W, f"{BIAS} y = Gemm(x, w, b)"),
        (W.T, f"{BIAS} y = Gemm<transB=1>(x, w, b)"),
        (W.astype(np.float64), f"{BIAS} c = Cast<to=1>(w) m = MatMul(x, c) y = Add(m, b)"),
    ],
)
def test_weights_are_found_however_they_are_stored(stored: np.ndarray, text: str) -> None:
    proto = linear_graph(stored, text, outputs=4)
    proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 6
    (linear,) = find_linears(ir.from_proto(proto))
    assert np.array_equal(linear.map.weight, W.T)
    assert np.array_equal(linear.map.bias, B)
    assert linear.y.name == "y"


@pytest.mark.parametrize(
    "text", ["y = Gemm<alpha=2.0>(x, w)", "t = Transpose(x) y = Gemm<transA=1>(t, w)", "y = MatMul(x, x)", "y = Relu(x)"]
)
def test_what_is_no_linear_is_left_alone(text: str) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 20]> g (float[6, 6] x) => (float[6, 4] y) {{ {text} }}')
    proto.graph.initializer.append(onnx.numpy_helper.from_array(W, "w"))
    assert find_linears(ir.from_proto(proto)) == []


def test_an_embedding_by_a_linear_is_not_one_of_the_encoder() -> None:
    proto = linear_graph(
        W, "e = MatMul(x, w) r = Relu(e) v = Constant<value_floats=[1.0, 1.0, 1.0, 1.0]>() y = MatMul(r, u)", outputs=4
    )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), "u"))
    linears = find_linears(ir.from_proto(proto))
    assert [linear.shape for linear in linears] == [(4, 6), (4, 4)]
    assert after_weights(linears) == [linears[1]]


ACTIVATIONS = {
    "relu": "a = Relu(h)",
    "gelu": "a = Gelu(h)",
    "erf": "d = Div(h, c) e = Erf(d) p = Add(e, one) m = Mul(h, p) a = Mul(m, half)",
    "tanh": "q = Pow(h, three) k = Mul(q, c) s = Add(h, k) z = Mul(s, c) t = Tanh(z) p = Add(one, t) m = Mul(half, h) a = Mul(m, p)",
    "quick": "k = Mul(c, h) s = Sigmoid(k) a = Mul(h, s)",
}
SCALARS = " ".join(
    f"{name} = Constant<value_float={value}>()" for name, value in {"c": 1.5, "one": 1.0, "half": 0.5, "three": 3.0}.items()
)


def mlp_graph(middle: str) -> ir.Model:
    proto = linear_graph(W, f"{SCALARS} h = MatMul(x, w) {middle} y = MatMul(a, u)", outputs=3)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(W[:4, :3].copy(), "u"))
    return ir.from_proto(proto)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_mlp_is_known_by_its_activation(name: str) -> None:
    linears = find_linears(mlp_graph(ACTIVATIONS[name]))
    (mlp,) = find_mlps(linears)
    assert [mlp.fc1, mlp.fc2] == linears


@pytest.mark.parametrize(
    "middle",
    [
        "a = Softmax(h)", "v = Constant<value_floats=[1.0, 2.0, 3.0, 4.0]>() a = Mul(h, v)", "a = Identity(x)",
        "s = ReduceMean<keepdims=1>(h) a = Sub(h, s)", "g = Relu(x) k = MatMul(g, w) a = Mul(h, k)",
    ],
)  # fmt: skip
def test_what_mixes_units_or_treats_them_differently_is_no_mlp(middle: str) -> None:
    assert all(mlp.fc1.y.name != "h" for mlp in find_mlps(find_linears(mlp_graph(middle))))


def test_a_linear_in_half_or_with_infinity_is_refused_by_name() -> None:
    half = linear_graph(W, "h = Cast<to=10>(x) n = MatMul(h, w) y = Cast<to=1>(n)", outputs=4)
    half.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(W.astype(np.float16), "w"))
    half.graph.node[1].name = "blocks.0.fc1"
    with pytest.raises(InputError, match=r"'blocks.0.fc1': expected float32 weights, got float16"):
        find_linears(ir.from_proto(half))
    broken = W.copy()
    broken[0, 0] = np.inf
    with pytest.raises(InputError, match="expected finite weights"):
        find_linears(ir.from_proto(linear_graph(broken, "y = MatMul(x, w)", outputs=4)))


def test_a_graph_without_a_pattern_is_refused_by_cholesky(graphs: Graphs, tmp_path: Path) -> None:
    path = write_graph(tmp_path / "m.onnx", "ours", "torchscript")
    proto = onnx.load(path)
    for node in proto.graph.node:
        if node.op_type == "Erf":
            node.op_type = "Softmax"
    onnx.save(proto, path)
    with pytest.raises(InputError, match="found no MLP"):
        decompose(read_source(f"onnx:{path}"), "cholesky", keep=0.5)
