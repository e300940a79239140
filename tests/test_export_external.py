"""Weights outside `model.onnx`, as above 2 GB: the threshold is lowered, and the whole path is walked with a tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

import export.pipeline
import export.storage
from export.engine import build_engines, plan_engines
from export.pipeline import ExportOptions, export_bundle
from runtime.bench import run_bench
from runtime.bundle import MODEL, Bundle, open_bundle
from runtime.plan import BenchPlan, Target
from runtime.report.contents import contents_record
from runtime.runners.trt_flavor import RTX
from runtime.verification import self_check
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset
from vitnla.methods import Decomposition
from vitnla.sources.model import SourceModel

DATA = f"{MODEL}.data"


@pytest.fixture
def low_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.storage, "EXTERNAL_ABOVE", 1000)


@pytest.fixture(scope="module")
def bundle(
    tiny_source: SourceModel, tiny_low_rank: Decomposition, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.storage, "EXTERNAL_ABOVE", 1000)
        return export_bundle(
            tiny_source, tiny_low_rank, method="svd", method_config={}, data=tiny_data, options=ExportOptions(),
            destination=tmp_path_factory.mktemp("external") / "tiny", command="test",
        )  # fmt: skip


def test_the_data_are_hashed_and_counted(bundle: Bundle, tiny_low_rank_bundle: Bundle) -> None:
    assert {MODEL, DATA} < set(bundle.manifest.files)
    sizes = [(bundle.folder / name).stat().st_size for name in (MODEL, DATA)]
    assert bundle.model_bytes() == contents_record(bundle)["model_bytes"] == sum(sizes)
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
