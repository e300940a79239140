"""From model to bundle: what is written, what is refused, and that nothing is ever left half-written."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from rich.console import Console

import export.bundle.from_model
import export.graph.files
from runtime.bundle.schema import MANIFEST, MODEL, PREDICTIONS, Bundle, Parity, open_bundle
from runtime.report.terminal.bundle_info import bundle_info_tables
from runtime.report.terminal.cells import losses_table
from tests.helpers.exports import export_decomposition
from vitnla.common.errors import InputError, VerdictError
from vitnla.common.files import sha256_file
from vitnla.common.measures import Accuracy
from vitnla.data.dataset import Dataset, Split
from vitnla.methods import METHODS, Decomposition
from vitnla.model import load_checkpoint
from vitnla.model.predict import predict
from vitnla.sources.load import load_model
from vitnla.sources.source_logits import source_logits
from vitnla.sources.source_model import SourceModel

Export = Callable[..., Bundle]


@pytest.fixture
def export_to(tiny_source: SourceModel, tiny_low_rank: Decomposition, tiny_data: Dataset) -> Export:
    def run(destination: Path, **options: Any) -> Bundle:
        return export_decomposition(tiny_source, tiny_low_rank, tiny_data, destination, **options)

    return run


@pytest.fixture
def quick_trace(tiny_low_rank_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracer's answer, already known: what these tests are about comes after it."""
    monkeypatch.setattr(export.bundle.from_model, "trace", lambda model, opset: onnx.load(tiny_low_rank_bundle.model_path))


def names(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_the_manifest_covers_every_file(tiny_low_rank_bundle: Bundle) -> None:
    folder, manifest = tiny_low_rank_bundle.folder, tiny_low_rank_bundle.manifest
    assert set(manifest.files) == names(folder) - {MANIFEST}
    assert all(sha256_file(folder / name) == digest for name, digest in manifest.files.items())


def test_the_manifest_says_what_was_exported(
    tiny_low_rank_bundle: Bundle, tiny_low_rank: Decomposition, tiny_source: SourceModel
) -> None:
    manifest = tiny_low_rank_bundle.manifest
    assert manifest.name == tiny_low_rank_bundle.folder.name == "tiny-svd"
    assert manifest.model == tiny_low_rank.model.config.model_dump(mode="json")
    assert manifest.graph.low_rank_pairs == 5
    assert manifest.macs.model < manifest.macs.dense == 5 * 2 * (48 * 16 + 16 * 16 + 2 * 32 * 16)
    assert manifest.macs.model == sum(row.macs for row in manifest.layers)
    assert manifest.parity.met
    assert manifest.source_sha256 == tiny_source.sha256
    assert manifest.input.shape == ("batch", 1, 8, 8)
    assert {"torch", "onnx", "onnxruntime", "vitdeploy"} <= set(manifest.tools)


def test_accuracy_is_that_of_the_file_and_of_the_dense_source(
    tiny_bundle: Bundle, tiny_low_rank_bundle: Bundle, tiny_low_rank: Decomposition, tiny_source: SourceModel, tiny_data: Dataset
) -> None:
    test = tiny_data.split("test")
    dense = predict(tiny_source.model, tiny_source.preprocessing, test.images).argmax(1)
    own = predict(tiny_low_rank.model, tiny_source.preprocessing, test.images).argmax(1)
    accuracy = tiny_low_rank_bundle.manifest.accuracy
    assert accuracy.dense_top1 == (dense == test.labels).mean()
    assert accuracy.top1 == (own == test.labels).mean()
    assert accuracy.agreement == (own == dense).mean()
    assert accuracy.fingerprint == test.fingerprint()
    assert tiny_bundle.manifest.accuracy.agreement == 1
    np.testing.assert_array_equal(tiny_low_rank_bundle.dense_predictions(), dense)


def test_the_reference_can_be_checked_without_torch(tiny_low_rank_bundle: Bundle) -> None:
    images, logits = tiny_low_rank_bundle.reference()
    assert images.shape == (8, 1, 8, 8)
    found = onnxruntime.InferenceSession(tiny_low_rank_bundle.model_path).run(None, {"images": images})[0]
    np.testing.assert_allclose(found, logits, atol=1e-4 * np.abs(logits).max())


def test_the_file_alone_says_what_it_is(tiny_low_rank_bundle: Bundle, tiny_source: SourceModel) -> None:
    metadata = onnxruntime.InferenceSession(tiny_low_rank_bundle.model_path).get_modelmeta().custom_metadata_map
    assert metadata["vitdeploy.method"] == "svd"
    assert metadata["vitdeploy.source_sha256"] == tiny_source.sha256
    assert json.loads(metadata["vitdeploy.ranks"]) == {"0.qkv": 4, "0.fc1": 6, "0.fc2": 5, "1.qkv": 4, "1.fc2": 5}
    assert json.loads(metadata["vitdeploy.labels"]) == list("abcdefghij")
    assert json.loads(metadata["vitdeploy.preprocessing"])["mean"] == [0.3]
    assert metadata["vitdeploy.version"] == tiny_low_rank_bundle.manifest.tools["vitdeploy"]


def test_a_bundle_is_a_source_again(tiny_low_rank_bundle: Bundle, tiny_low_rank: Decomposition, tiny_source: SourceModel) -> None:
    source = load_model(str(tiny_low_rank_bundle.folder))
    assert source.model.config == tiny_low_rank.model.config
    assert (source.preprocessing, source.labels) == (tiny_source.preprocessing, tiny_source.labels)
    assert load_checkpoint(tiny_low_rank_bundle.folder / "checkpoint").config == source.model.config


def test_dense_predictions_are_asked_for_once(
    tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path))
    test = tiny_data.split("test")
    first = source_logits(tiny_source, test)
    monkeypatch.setattr("vitnla.sources.source_logits.predict", lambda *args, **kwargs: pytest.fail("computed again"))
    np.testing.assert_array_equal(source_logits(tiny_source, test), first)
    with pytest.raises(pytest.fail.Exception):
        source_logits(replace(tiny_source, sha256="other"), test)


@pytest.mark.usefixtures("quick_trace")
def test_data_of_other_classes_leave_the_accuracy_unmeasured(
    tiny_source: SourceModel, tiny_low_rank: Decomposition, tiny_data: Dataset, tmp_path: Path
) -> None:
    bundle = export_decomposition(tiny_source, tiny_low_rank, replace(tiny_data, labels=tuple("klmnopqrst")), tmp_path / "out")
    accuracy, (stage,) = bundle.manifest.accuracy, bundle.manifest.losses
    assert bundle.manifest.parity.met
    assert (accuracy.top1, accuracy.dense_top1, stage.top1, stage.lost_points, stage.lost, stage.gained) == (None,) * 6
    assert accuracy.not_measured is not None
    assert "the data has 'k', 'l', 'm', 'n', 'o', ... (10); the model has 'a', 'b'" in accuracy.not_measured
    with np.load(bundle.folder / PREDICTIONS) as kept:
        assert accuracy.agreement == (kept["dense"] == kept["exported"]).mean() < 1
    shown = io.StringIO()
    Console(file=shown, width=200).print(bundle_info_tables(bundle), losses_table({"out": bundle.manifest.losses}))
    assert "not measured top-1: 0 of 10 classes of data 'tiny'" in " ".join(shown.getvalue().split())


def test_classes_in_another_order_and_some_of_them_only(tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path) -> None:
    """Labels that are the model's own answers: 100 %, whatever order the data count their classes in."""
    method, test = METHODS["none"], tiny_data.split("test")
    answers = source_logits(tiny_source, test)

    def exported(name: str, order: str) -> Accuracy:
        own = answers[:, ["abcdefghij".index(label) for label in order]].argmax(1)
        data = Dataset("tiny", tuple(label.upper() for label in order), {"test": Split(test.images, own)})
        dense = method.apply(tiny_source.model, None, method.config())
        return export_decomposition(tiny_source, dense, data, tmp_path / name, "none").manifest.accuracy

    backwards, some = exported("backwards", "jihgfedcba"), exported("some", "hbe")
    assert (backwards.top1, backwards.dense_top1, backwards.columns) == (1.0, 1.0, tuple(range(9, -1, -1)))
    assert (some.top1, some.agreement, some.columns) == (1.0, 1.0, (7, 1, 4))


class TestRefusals:
    def test_an_existing_folder_is_kept(self, export_to: Export, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("x")
        with pytest.raises(InputError, match="already exists"):
            export_to(tmp_path / "out")
        assert names(tmp_path) == {"out/mine"}

    def test_force_replaces_it_whole(self, export_to: Export, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("x")
        bundle = export_to(tmp_path / "out", force=True, name="other")
        assert bundle.name == "other"
        assert "mine" not in names(bundle.folder)
        assert [entry.name for entry in tmp_path.iterdir()] == ["out"]

    @pytest.mark.parametrize("step", ["measure_parity", "write_checkpoint", "open_bundle"])
    @pytest.mark.parametrize("failure", [KeyboardInterrupt(), RuntimeError("bug")])
    def test_a_failure_in_the_middle_leaves_the_old_bundle(
        self, export_to: Export, tmp_path: Path, step: str, failure: BaseException, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: object, **kwargs: object) -> None:
            raise failure

        before = export_to(tmp_path / "out", name="before").manifest
        monkeypatch.setattr(export.bundle.from_model, step, fail)
        with pytest.raises(type(failure)):
            export_to(tmp_path / "out", name="after", force=True)
        assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
        found = open_bundle(tmp_path / "out").manifest
        assert found == before if step != "open_bundle" else found.name == "after"

    @pytest.mark.parametrize("writer", ["onnx.save_model", "numpy.savez", "export.bundle.from_model.write_checkpoint"])
    def test_a_full_disk_is_one_line_and_leaves_nothing(
        self, export_to: Export, tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: object, **kwargs: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(writer, full)
        with pytest.raises(InputError, match=r"cannot write .*out: No space left on device"):
            export_to(tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_logits_that_differ_leave_no_bundle_unless_allowed(
        self, export_to: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed = Parity(max_rel=0.25, tolerance=1e-4, batches=(1,))
        monkeypatch.setattr(export.bundle.from_model, "measure_parity", lambda *args: failed)
        with pytest.raises(VerdictError, match=r"differ from torch's by 2\.5e-01"):
            export_to(tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
        assert not export_to(tmp_path / "out", allow_parity_failure=True).manifest.parity.met

    def test_nan_is_never_allowed(self, export_to: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nan = Parity(max_rel=float("inf"), tolerance=1e-4, batches=(1,))
        monkeypatch.setattr(export.bundle.from_model, "measure_parity", lambda *args: nan)
        with pytest.raises(VerdictError, match="NaN"):
            export_to(tmp_path / "out", allow_parity_failure=True)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"opset": 12}, "from 18 to 23, got 12"),
            ({"precision": "int7"}, "int7"),
            ({"eval_split": "holdout"}, "unknown split of data 'tiny' 'holdout'"),
            ({"eval_images": 0}, "no images"),
            ({"engine": "onnx2trt"}, "unknown engine 'onnx2trt'"),
        ],
    )
    def test_bad_options_are_refused_before_any_work(
        self, export_to: Export, tmp_path: Path, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            export_to(tmp_path / "out", **options)
        assert list(tmp_path.iterdir()) == []

    def test_data_with_a_misspelt_class_are_refused(
        self, tiny_source: SourceModel, tiny_low_rank: Decomposition, tiny_data: Dataset, tmp_path: Path
    ) -> None:
        data = replace(tiny_data, labels=(*"abcdefghi", "jay"))
        with pytest.raises(InputError, match=r"9 of 10 classes of data 'tiny' match the model's by name.*no 'jay'") as error:
            export_decomposition(tiny_source, tiny_low_rank, data, tmp_path / "out")
        assert "--class-map" in error.value.hint
        assert list(tmp_path.iterdir()) == []

    def test_external_weights_are_part_of_the_bundle(
        self, export_to: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(export.graph.files, "EXTERNAL_ABOVE", 1000)
        bundle = export_to(tmp_path / "out", eval_images=5)
        assert f"{MODEL}.data" in bundle.manifest.files
        assert bundle.manifest.graph.simplifier.startswith("none: ")
        assert bundle.manifest.accuracy.images == 5
        assert bundle.model_bytes() > (bundle.folder / MODEL).stat().st_size
