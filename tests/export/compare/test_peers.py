"""Other tools' files beside our bundles: wrapped as they stand, and a row with the true reason for what cannot be."""

from __future__ import annotations

import copy
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

import export.compare.peers as gathering
from export.compare.adopt import Adoption, adopt_graph
from export.compare.peers import Asked, absent_cells, gather
from runtime.bench.plan import BenchPlan, Target
from runtime.bundle.schema import Bundle
from runtime.check.parity import check_parity
from runtime.results.schema import read_cells
from tests.helpers.cells import cell
from tests.helpers.onnx_graphs import CHANNELS, CLASSES, SIZE, tiny, write_data, write_graph
from vitnla.common.errors import VitDeployError
from vitnla.common.files import sha256_file
from vitnla.data.dataset import Dataset
from vitnla.data.load import load_data
from vitnla.data.preprocessing import Preprocessing
from vitnla.model import VisionTransformer
from vitnla.model.checkpoint import write_checkpoint
from vitnla.sources.description import write_description
from vitnla.sources.source_model import SourceModel

ROOT = Path(__file__).parents[3]
PREPROCESSING = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.6), std=(0.25, 0.3, 0.2))
LABELS = tuple("abcde")


@pytest.fixture(scope="module")
def source() -> SourceModel:
    model = tiny("ours")
    assert isinstance(model, VisionTransformer)
    return SourceModel("theirs", "7" * 64, model, PREPROCESSING, LABELS)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"npz:{write_data(tmp_path_factory.mktemp('data') / 'data.npz')}"


@pytest.fixture(scope="module")
def data(spec: str) -> Dataset:
    return load_data(spec)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """As optimum lays them out: without preprocessing, and quantised with its operators of ONNX Runtime."""
    folder = tmp_path_factory.mktemp("optimum")
    named = {"fp32": folder / "fp32" / "model.onnx", "int8-dynamic": folder / "int8-dynamic" / "model_quantized.onnx"}
    for path in named.values():
        path.parent.mkdir()
    write_graph(named["fp32"], "ours", "torchscript")
    quantize_dynamic(named["fp32"], named["int8-dynamic"], per_channel=True, weight_type=QuantType.QInt8)
    return named


def adopted(file: Path, source: SourceModel, data: Dataset, folder: Path) -> Bundle:
    return adopt_graph(Adoption(file, f"optimum-{file.parent.name}", folder, "test"), source, data, lambda step: None)


@pytest.mark.parametrize("precision", ["fp32", "int8-dynamic"])
def test_a_foreign_file_becomes_a_bundle_as_it_stands(
    precision: str, files: dict[str, Path], source: SourceModel, data: Dataset, tmp_path: Path
) -> None:
    bundle = adopted(files[precision], source, data, tmp_path / "out")
    manifest = bundle.manifest
    assert sha256_file(bundle.model_path) == sha256_file(files[precision])
    assert (manifest.precision, manifest.method, manifest.source_sha256) == (precision, "none", source.sha256)
    assert manifest.preprocessing == PREPROCESSING.model_dump(mode="json")
    assert manifest.input.shape == ("batch", CHANNELS, SIZE, SIZE)
    assert manifest.macs.ratio == 1.0
    assert manifest.accuracy.images == 21
    row = check_parity(bundle, Target.parse("ort"), threads=1)
    assert row.error is None
    assert row.max_rel is not None
    for found in (row.max_rel, manifest.parity.max_rel):
        assert (found < 1e-4) == (precision == "fp32")


def test_files_of_other_weights_or_images_are_refused(
    files: dict[str, Path], source: SourceModel, data: Dataset, tmp_path: Path
) -> None:
    model = onnx.load(files["fp32"])
    head = max(model.graph.initializer, key=lambda tensor: tensor.dims[0] == CLASSES or tensor.dims[-1] == CLASSES)
    head.CopyFrom(onnx.numpy_helper.from_array(3 * onnx.numpy_helper.to_array(head), head.name))
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(VitDeployError, match="expected the logits of theirs within 1e-02"):
        adopted(tmp_path / "other.onnx", source, data, tmp_path / "out")
    smaller = write_graph(tmp_path / "fixed.onnx", "ours", "torchscript", batch=2)
    larger = SourceModel("theirs", source.sha256, source.model, PREPROCESSING.model_copy(update={"image_size": SIZE * 2}), LABELS)
    with pytest.raises(VitDeployError, match="expected 3 x 16² images as theirs takes, got 3 x 8²"):
        adopted(smaller, larger, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_rows_of_absent_peers_carry_the_true_reason(
    source: SourceModel, spec: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "PEERS", (gathering.BASELINE, gathering.Peer("dense-fp8", "fp8", "ort", ("ort", "torch"))))
    model = _write_source(source, tmp_path / "source")
    broken = tmp_path / "damaged" / "model.onnx"
    broken.parent.mkdir()
    broken.write_bytes(files["fp32"].read_bytes()[:1000])
    asked = Asked(str(model), spec, tmp_path / "work", "test", [files["int8-dynamic"], broken])
    peers = gather(asked, lambda step: None)
    assert [bundle.name for bundle in peers.bundles] == ["dense-fp32", "optimum-int8-dynamic"]
    reasons = {(one.name, one.runtime): one.reason for one in peers.absent}
    assert list(reasons) == [("dense-fp8", "ort"), ("dense-fp8", "torch"), ("optimum-damaged", "ort")]
    assert "is not a readable ONNX model" in reasons["optimum-damaged", "ort"]
    assert "fp8" in reasons["dense-fp8", "ort"]
    plan = BenchPlan(peers.bundles, (Target("ort"),), (1, 16), 1)
    rows = absent_cells(peers.absent, cell("dense-fp32", 10, 0.5), plan)
    assert [(row.bundle, row.batch, row.run) for row in rows if row.bundle == "optimum-damaged"] == [
        ("optimum-damaged", 1, "r1"), ("optimum-damaged", 16, "r1")
    ]  # fmt: skip
    assert all(row.error for row in rows)

    # The same work folder and a model of other weights: nothing of the old one is taken for its own.
    with torch.no_grad():
        other = copy.deepcopy(source.model)
        other.head.weight.mul_(2)
    write_checkpoint(other, model)
    again = gather(replace(asked, optimum=[files["fp32"]]), lambda step: None)
    assert {bundle.manifest.source_sha256 for bundle in again.bundles} != {source.sha256}
    assert len({bundle.manifest.source_sha256 for bundle in (*again.bundles, *peers.bundles)}) == 2
    assert "expected the logits of" in {one.name: one.reason for one in again.absent}["optimum-fp32"]


def test_the_script_writes_a_row_for_every_peer(
    source: SourceModel, spec: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _write_source(source, tmp_path / "source")
    words = [
        "--model", model, "--data", spec, "--work", tmp_path / "work", "-b", "1", "--seconds", "0.1", "--rounds", "3",
        "--threads", "1", "-o", tmp_path / "peers.jsonl", "--optimum", *files.values(), tmp_path / "missing" / "model.onnx",
    ]  # fmt: skip
    script = runpy.run_path(str(ROOT / "scripts" / "compare_peers.py"))
    monkeypatch.setattr(sys, "argv", ["compare_peers.py", *map(str, words)])
    monkeypatch.setitem(script["compare"].__globals__, "TARGETS", (Target("ort"),))  # torch.compile takes its time
    monkeypatch.setattr(gathering, "PEERS", (gathering.BASELINE,))
    assert script["main"]() == 0
    cells = {one.key: one for one in read_cells(tmp_path / "peers.jsonl")}
    assert list(cells) == [
        "dense-fp32/ort/fp32/b1", "optimum-fp32/ort/fp32/b1", "optimum-int8-dynamic/ort/int8-dynamic/b1", "optimum-missing/ort/fp32/b1"
    ]  # fmt: skip
    assert [one.error is None for one in cells.values()] == [True, True, True, False]
    assert "no file at" in (cells["optimum-missing/ort/fp32/b1"].error or "")
    assert cells["optimum-int8-dynamic/ort/int8-dynamic/b1"].ratio is not None


def _write_source(source: SourceModel, folder: Path) -> Path:
    folder.mkdir()
    write_checkpoint(source.model, folder)
    write_description(folder, PREPROCESSING, LABELS, None)
    return folder
