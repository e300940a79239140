"""Weights outside `model.onnx`, as above 2 GB: the threshold is lowered, and the whole path is walked with a tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

import export.bundle.writer
import export.graph.files
from export.engine.build import build_engines, plan_engines
from export.graph.parity import OnnxModel
from runtime.bench.plan import BenchPlan, Target
from runtime.bench.run import run_bench
from runtime.bundle.schema import MODEL, Bundle, open_bundle
from runtime.check.bundle_check import self_check
from runtime.report.terminal.bundle_info import bundle_info_record
from runtime.runners.trt.library import RTX
from tests.helpers.exports import export_decomposition
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset
from vitnla.methods import Decomposition
from vitnla.sources.source_model import SourceModel

DATA = f"{MODEL}.data"


@pytest.fixture
def low_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.graph.files, "EXTERNAL_ABOVE", 1000)


@pytest.fixture(scope="module")
def bundle(
    tiny_source: SourceModel, tiny_low_rank: Decomposition, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.graph.files, "EXTERNAL_ABOVE", 1000)
        return export_decomposition(tiny_source, tiny_low_rank, tiny_data, tmp_path_factory.mktemp("external") / "tiny")


def test_the_data_are_hashed_and_counted(bundle: Bundle, tiny_low_rank_bundle: Bundle) -> None:
    assert {MODEL, DATA} < set(bundle.manifest.files)
    sizes = [(bundle.folder / name).stat().st_size for name in (MODEL, DATA)]
    assert bundle.model_bytes() == bundle_info_record(bundle)["model_bytes"] == sum(sizes)
    assert sizes[1] > 1000
    assert "more weights than that allows" in bundle.manifest.graph.simplifier
    assert bundle.manifest.graph.low_rank_pairs == tiny_low_rank_bundle.manifest.graph.low_rank_pairs
    assert bundle.manifest.accuracy == tiny_low_rank_bundle.manifest.accuracy


def test_the_weights_are_outside_and_the_folder_can_move(bundle: Bundle, tmp_path: Path) -> None:
    moved = Path(shutil.move(shutil.copytree(bundle.folder, tmp_path / "copy"), tmp_path / "moved"))
    graph = onnx.load(moved / MODEL, load_external_data=False).graph
    outside = [tensor for tensor in graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert outside
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {DATA}
    assert self_check(open_bundle(moved), Target("ort"), threads=1, required=True).verdict == "met"


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_runtimes_check_themselves_on_it(bundle: Bundle, runtime: str) -> None:
    assert self_check(bundle, Target(runtime), threads=1, required=True).verdict == "met"


def test_bench_measures_it(bundle: Bundle) -> None:
    plan = BenchPlan((bundle,), (Target("ort"),), (1,), 1, seconds=0.05, min_count=3, rounds=1)
    (cell,) = run_bench(plan, None, command="test")
    assert cell.error is None


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_damaged_data_are_refused(bundle: Bundle, tmp_path: Path, damage: str) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    if damage == "missing":
        (folder / DATA).unlink()
    else:
        content = bytearray((folder / DATA).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / DATA).write_bytes(content)
    with pytest.raises(InputError, match=f"file {DATA} (is missing|does not match)"):
        open_bundle(folder)


@pytest.mark.skipif(not RTX.installed, reason="TensorRT for RTX is not installed")
@pytest.mark.usefixtures("low_threshold")
def test_engines_of_both_precisions_are_compiled_from_it(bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    plan = plan_engines("trt-rtx", ("SM89",), ("fp32", "fp16"), "1:2:4")
    assert plan is not None
    fp32, fp16 = build_engines(folder, plan)
    assert fp32.graph_max_rel < 1e-4 < fp16.graph_max_rel < 1e-2


@pytest.mark.slow
def test_a_file_above_two_gigabytes_is_written_checked_and_run(tmp_path: Path) -> None:
    """For real, with weights that no protobuf message can hold: eight rows of 256 MiB each."""
    count, width = 8, 1 << 26
    shape = (onnx.TensorProto.FLOAT, ["batch", 1])
    given, answer = (onnx.helper.make_tensor_value_info(name, *shape) for name in ("images", "sum8"))
    last = onnx.numpy_helper.from_array(np.array([[width - 1]]), "last")
    nodes = []
    for index in range(count):
        nodes.append(onnx.helper.make_node("Gather", [f"row{index}", "last"], [f"picked{index}"]))
        total = f"sum{index}" if index else "images"
        nodes.append(onnx.helper.make_node("Add", [total, f"picked{index}"], [f"sum{index + 1}"]))
    graph = onnx.helper.make_graph(nodes, "large", [given], [answer], [last])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    for index in range(count):  # filled in place: a copy of each on the way would cost as much memory again
        row = model.graph.initializer.add(name=f"row{index}", dims=[width], data_type=onnx.TensorProto.FLOAT)
        row.raw_data = np.full(width, index + 1, np.float32).tobytes()
    files = export.graph.files.save_model(model, tmp_path / MODEL)
    del model, row
    assert [file.name for file in files] == [MODEL, DATA]
    assert files[1].stat().st_size >= 4 * count * width == 1 << 31
    assert OnnxModel(tmp_path / MODEL)(np.zeros((2, 1), np.float32)).ravel().tolist() == [36.0, 36.0]
    files[1].unlink()
