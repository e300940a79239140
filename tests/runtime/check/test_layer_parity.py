"""`parity --layers`: a graph that was wounded on purpose is found at its wound, by bisection, one marked value at a time."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from export.cli.main import app
from export.graph.stream_taps import find_taps, marked
from export.graph.trace import trace
from export.layer_parity import check_layer_parity
from runtime.bench.plan import Target
from runtime.bundle.schema import MODEL, Bundle
from runtime.check.layer_parity import LayerParity, LayerParityRow, bisect_first, is_over, layer_parity_row
from runtime.report.terminal.parity import conclusion
from tests.helpers.bundles import copy_bundle
from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.sources.source_model import SourceModel
from vitnla.training.initialise import new_model


def wound(bundle: Bundle, folder: Path, parameter: str, *, constant: bool = False) -> Bundle:
    """A copy whose graph has another bias in one place; its manifest vouches for it."""
    graph = onnx.load(bundle.model_path)
    (tensor,) = (one for one in graph.graph.initializer if one.name == parameter)
    values = numpy_helper.to_array(tensor)
    shift = np.full(values.shape, 0.5) if constant else np.linspace(-0.5, 1, values.size)
    tensor.CopyFrom(numpy_helper.from_array((values + shift).astype(np.float32), parameter))
    wounded = folder / "wounded.onnx"
    onnx.save_model(graph, wounded)
    copied = copy_bundle(bundle, folder / "bundle")
    wounded.replace(copied.model_path)
    files = {**bundle.manifest.files, MODEL: sha256_file(copied.model_path)}
    manifest = bundle.manifest.model_copy(update={"files": files})
    (copied.folder / "manifest.json").write_text(manifest.to_json())
    return replace(copied, manifest=manifest)


@pytest.mark.parametrize("count", [1, 2, 7, 26])
def test_bisection_finds_the_first_in_logarithmically_many_probes(count: int) -> None:
    for wanted in [*range(count), None]:
        asked: list[int] = []

        def broken(place: int, wanted: int | None = wanted, asked: list[int] = asked) -> bool:
            asked.append(place)
            return wanted is not None and place >= wanted

        assert bisect_first(count, broken) == wanted
        assert len(asked) <= (1 if wanted is None else 1 + math.ceil(math.log2(count)))


def test_errors_are_of_norms_and_what_is_not_finite_is_over() -> None:
    reference = np.array([[3.0, 4.0]], np.float32)
    found = layer_parity_row("blocks.0", "mlp", np.array([[3.0, 4.5]], np.float32), reference)
    assert found.relative_error == pytest.approx(0.1)
    assert found.cosine == pytest.approx((9 + 18) / (5 * math.hypot(3, 4.5)))
    assert is_over(found, 0.05)
    assert not is_over(found, 0.11)
    spoilt = layer_parity_row("blocks.0", "mlp", np.array([[np.nan, 4.0]], np.float32), reference)
    assert (spoilt.relative_error, spoilt.cosine, is_over(spoilt, 1e9)) == (None, None, True)


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_a_clean_bundle_is_within_the_tolerance(tiny_bundle: Bundle, runtime: str) -> None:
    found = check_layer_parity(tiny_bundle, Target(runtime), threads=1)
    assert (found.first, found.probes, found.reference) == (None, 1, "torch fp32")
    names = [(row.layer, row.part) for row in found.layers]
    assert names[:3] == [("input", "embedding"), ("blocks.0", "attention"), ("blocks.0", "mlp")]
    assert names[-1] == ("output", "head")
    assert all(row.relative_error is not None and row.relative_error < 1e-5 for row in found.layers)
    assert "No layer is over the tolerance" in conclusion(found)


@pytest.mark.parametrize(("block", "bias", "part"), [(1, "attn.proj", "attention"), (0, "mlp.fc2", "mlp"), (1, "mlp.fc1", "mlp")])
def test_a_wound_is_found_where_it_is(tiny_bundle: Bundle, tmp_path: Path, block: int, bias: str, part: str) -> None:
    wounded = wound(tiny_bundle, tmp_path, f"blocks.{block}.{bias}.bias")
    found = check_layer_parity(wounded, Target("ort"), threads=1)
    assert found.first is not None
    assert (found.layers[found.first].layer, found.layers[found.first].part) == (f"blocks.{block}", part)
    assert found.probes <= 1 + math.ceil(math.log2(len(found.layers)))
    assert f"blocks.{block} {part}" in conclusion(found)


def test_an_error_that_a_norm_takes_away_again_is_found_all_the_same(tiny_bundle: Bundle, tmp_path: Path) -> None:
    wounded = wound(tiny_bundle, tmp_path, "blocks.1.attn.proj.bias", constant=True)
    found = check_layer_parity(wounded, Target("ort"), threads=1)
    assert found.first is not None
    assert (found.layers[found.first].layer, found.layers[found.first].part) == ("blocks.1", "attention")
    assert found.probes == len(found.layers)
    assert "The output is within it again" in conclusion(found)


def test_only_one_value_is_marked_and_the_graph_stays_whole(tiny_bundle: Bundle) -> None:
    graph = onnx.load(tiny_bundle.model_path)
    taps = find_taps(graph)
    for tap in taps[:-1]:
        made = marked(graph, tap)
        assert [one.name for one in made.graph.output] == [tap.value, "logits"]
        assert len(made.graph.node) == len(graph.graph.node)
    assert [one.name for one in marked(graph, taps[-1]).graph.output] == ["logits"]
    assert len(graph.graph.output) == 1


def test_norms_without_weights_and_a_missing_last_norm_are_read_too(tiny_source: SourceModel) -> None:
    plain = tiny_source.model.config
    blocks = len(plain.blocks)
    for changes in ({"norm": "rms"}, {"final_norm": "none"}):
        config = type(plain).model_validate({**plain.model_dump(), **changes})
        taps = find_taps(trace(new_model(config, 0)))
        assert len(taps) == 2 + 2 * blocks
        assert (taps[-2].layer, taps[-2].part) == (f"blocks.{blocks - 1}", "mlp")


def test_engines_and_strange_graphs_are_refused_in_one_line(tiny_bundle: Bundle) -> None:
    with pytest.raises(InputError, match="expected a runtime that runs the graph") as refused:
        check_layer_parity(tiny_bundle, Target("trt"), threads=1)
    assert "compiled engine" in str(refused.value.hint)
    graph = onnx.load(tiny_bundle.model_path)
    kept = [node for node in graph.graph.node if node.op_type != "LayerNormalization"]
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    with pytest.raises(InputError, match="at least two layer norms"):
        find_taps(graph)


def test_a_bundle_of_an_onnx_file_is_compared_with_its_own_graph(tiny_bundle: Bundle, tmp_path: Path) -> None:
    given = copy_bundle(tiny_bundle, tmp_path / "given", model=None)
    found = check_layer_parity(given, Target("ort"), threads=1)
    assert (found.reference, found.first) == ("graph without optimisation", None)
    lowered = copy_bundle(tiny_bundle, tmp_path / "lowered", model=None, precision="int8")
    with pytest.raises(InputError, match="holds no fp32 graph"):
        check_layer_parity(lowered, Target("ort"), threads=1)


def test_the_command_gives_table_losses_and_json(tiny_bundle: Bundle) -> None:
    words = ["parity", str(tiny_bundle.folder), "--data", "none", "--layers", "--threads", "1"]
    said = CliRunner().invoke(app, [*words, "--json"])
    record = json.loads(said.stdout)
    (one,) = record["layers"]
    assert one.pop("steepest") is None
    assert LayerParity.model_validate(one).first is None
    assert [stage["stage"] for stage in record["losses"]] == ["decomposition"]
    shown = CliRunner().invoke(app, words).stdout
    assert all(
        text in shown for text in ("Loss by step of the export", "decomposition", "blocks.0", "No layer is over the tolerance")
    )


def test_where_the_error_grows_most_is_marked() -> None:
    rows = tuple(
        LayerParityRow(layer=f"blocks.{place}", part="mlp", relative_error=error, cosine=1.0)
        for place, error in enumerate((0.01, 0.02, 0.08, 0.09))
    )
    found = LayerParity(
        bundle="b", runtime="ort", precision="int8", reference="torch fp32", tolerance=0.2, layers=rows, first=None, probes=1
    )
    assert found.steepest == 2
    assert "grows most at blocks.2 mlp" in conclusion(found)
