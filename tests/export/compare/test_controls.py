"""The dense bundles beside a decomposed one: which are wanted, made once, and never of another model."""

from __future__ import annotations

from pathlib import Path

import pytest

import export.compare.controls
from export.compare.controls import Control, make_control, wanted_controls
from export.pipeline import ExportRequest
from runtime.bundle.schema import Bundle
from vitnla.common.errors import InputError
from vitnla.sources.load import load_model
from vitnla.sources.source_model import SourceModel


def _like(bundle: Bundle, **changes: object) -> Bundle:
    return Bundle(bundle.folder, bundle.manifest.model_copy(update=changes))


def test_a_decomposed_bundle_wants_its_own_precision_and_int8(tiny_low_rank_bundle: Bundle) -> None:
    wanted = wanted_controls([tiny_low_rank_bundle], ["ort", "openvino", "torch"])
    assert [(one.precision, one.runtime) for one in wanted] == [("fp32", "ort"), ("int8", "ort"), ("int8", "openvino")]
    assert {one.source for one in wanted} == {"tiny"}
    assert [one.name for one in wanted][2] == "tiny-55555555-dense-int8-openvino"


def test_the_demo_is_also_compared_with_a_smaller_dense_model(
    tiny_low_rank_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []

    def load(spec: str) -> SourceModel:
        loaded.append(spec)
        return load_model(spec)

    monkeypatch.setattr(export.compare.controls, "load_model", load)
    decomposed = _like(tiny_low_rank_bundle, source="demo", precision="int8", runtime="openvino")
    wanted = wanted_controls([decomposed, decomposed], ["ort"])
    assert loaded == ["demo-small"]
    assert [(one.source, one.precision, one.runtime) for one in wanted] == [
        ("demo", "int8", "openvino"),
        ("demo-small", "int8", "openvino"),
        ("demo", "int8", "ort"),
    ]
    assert wanted[1].source_sha256 == load_model("demo-small").sha256


def test_what_is_there_is_not_wanted(tiny_bundle: Bundle, tiny_low_rank_bundle: Bundle) -> None:
    int8 = _like(tiny_bundle, precision="int8")
    assert wanted_controls([tiny_bundle, int8, tiny_low_rank_bundle], ["ort"]) == []
    assert wanted_controls([tiny_bundle], ["ort"]) == []  # dense bundles need no controls


def test_a_control_is_exported_once(tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ExportRequest] = []

    def fake(request: ExportRequest, on_step: object) -> Bundle:
        asked.append(request)
        assert request.output is not None
        request.output.symlink_to(tiny_bundle.folder)
        return tiny_bundle

    monkeypatch.setattr(export.compare.controls, "export_model", fake)
    control = Control("tiny", "5" * 64, "fp32", "ort")
    for _ in range(2):
        bundle = make_control(control, "demo", tmp_path, "test", lambda text: None, eval_images=7)
        assert bundle.manifest.source_sha256 == "5" * 64
    (request,) = asked
    assert (request.model, request.method, request.options.precision, request.options.eval_images) == ("tiny", "none", "fp32", 7)


def test_a_source_that_has_changed_is_no_control(tiny_bundle: Bundle, tmp_path: Path) -> None:
    control = Control("tiny", "6" * 64, "fp32", "ort")
    (tmp_path / control.name).symlink_to(tiny_bundle.folder)
    with pytest.raises(InputError, match="no longer the model"):
        make_control(control, "demo", tmp_path, "test", lambda text: None)
