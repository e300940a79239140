"""`vitdeploy study`: every row is made once, kept at once, and measured in fresh processes."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.cli.main import main
from export.study import rows as study_rows
from export.study.measure import InferenceCost
from export.study.request import StudyRequest, plan_items
from export.study.run_study import StudyProgress, run_study
from runtime.results.study import InferencePoint, StudyRow
from vitnla.common.errors import InputError
from vitnla.common.jsonl import read_records
from vitnla.methods import METHODS
from vitnla.model.checkpoint import load_checkpoint
from vitnla.training.config import PRESETS, Preset, TrainConfig

PRESET = Preset(
    patch_size=4, dim=16, depth=1, heads=2,
    train=TrainConfig(epochs=2, batch_size=32, full_token_epochs=1, ema_decay=0.5, shift=0, flip=False),
)  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, bright above or bright below: 240 training images and 60 test images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    images = rng.integers(0, 60, (300, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4] += 150
    path = tmp_path_factory.mktemp("data") / "halves.npz"
    np.savez(path, images=images, labels=labels, splits=np.repeat(["train", "test"], [240, 60]))
    return path


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PRESETS._items, "small", PRESET)
    monkeypatch.setattr("export.study.request.BATCHES", (1, 4))


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fresh processes: each takes seconds to import torch."""
    cost = InferenceCost((InferencePoint(batch=1, latency_ms=1.0, images_per_s=1000.0, stable=True),), peak_mb=2.0)
    monkeypatch.setattr(study_rows, "inference_cost", lambda checkpoint, setup: cost)
    monkeypatch.setattr(study_rows, "training_peak_mb", lambda checkpoint, setup: 3.0)


@pytest.fixture
def request_(archive: Path, tmp_path: Path) -> StudyRequest:
    return StudyRequest(
        f"npz:{archive}", ("svd",), {"svd": {"rank": "4"}}, "small", epochs=None, seeds=1, train_images=None, threads=1,
        folder=tmp_path / "study", command="vitdeploy study",
    )  # fmt: skip


def lines(folder: Path) -> list[StudyRow]:
    return read_records(folder / "results.jsonl", StudyRow, "a test")


def test_the_baseline_comes_first_and_each_method_once_per_seed(request_: StudyRequest) -> None:
    items = plan_items(replace(request_, methods=("svd", "none", "svd"), seeds=2))
    assert [item.key for item in items] == ["none, seed 0", "svd rank=4, seed 0", "none, seed 1", "svd rank=4, seed 1"]
    assert {item.method.name for item in plan_items(replace(request_, methods=()))} == set(METHODS)


def test_rows_hold_what_their_kind_has(request_: StudyRequest) -> None:
    _, rows = run_study(request_, StudyProgress())
    dense, svd = rows
    assert lines(request_.folder) == rows
    assert [point.epoch for point in dense.epochs] == [1, 2]
    assert all(point.train_s > 0 for point in dense.epochs)
    kept = [point for point in dense.epochs if point.kept][-1]
    assert kept.validation_top1 == max(point.validation_top1 for point in dense.epochs)
    assert dense.top1 == kept.test_top1
    assert (dense.decompose_s, dense.calibrate_s) == (None, None)
    assert dense.training_peak_mb is not None
    assert dense.training_peak_mb > 0
    assert (svd.epochs, svd.training_peak_mb) == ((), None)
    assert svd.calibrate_s is not None
    assert svd.decompose_s is not None
    assert svd.decompose_s > 0
    for row in rows:
        assert row.error is None
        assert [point.batch for point in row.inference] == [1, 4]
        assert all(point.latency_ms > 0 and point.images_per_s > 0 for point in row.inference)
        assert row.macs is not None
    assert svd.macs is not None
    assert svd.macs.ratio < 1
    assert svd.parameters is not None
    assert dense.parameters is not None
    assert svd.parameters < dense.parameters
    weights = load_checkpoint(request_.folder / "runs" / "none-seed0")
    assert dense.parameters == sum(parameter.numel() for parameter in weights.parameters())


@pytest.mark.usefixtures("unmeasured")
def test_rows_that_are_there_are_not_made_again(request_: StudyRequest) -> None:
    _, first = run_study(replace(request_, methods=("none",), settings={}), StudyProgress())
    made: list[str] = []
    _, second = run_study(request_, StudyProgress(on_row=lambda row, remaining_s: made.append(row.key)))
    assert made == ["svd rank=4, seed 0"]
    assert second[:1] == first
    _, third = run_study(request_, StudyProgress(on_row=lambda row, remaining_s: pytest.fail("nothing was left")))
    assert third == second


@pytest.mark.usefixtures("unmeasured")
def test_an_interrupted_study_keeps_rows_and_epochs(request_: StudyRequest) -> None:
    request_ = replace(request_, methods=("none",), settings={}, seeds=2)

    def stop(done: float, total: float, text: str) -> None:
        if "seed 1" in text and done > 4.6:  # in the second epoch of the second row
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(request_, StudyProgress(on_step=stop))
    assert [row.key for row in lines(request_.folder)] == ["none, seed 0"]
    assert len((request_.folder / "runs" / "none-seed1" / "log.jsonl").read_text().splitlines()) == 1
    _, rows = run_study(request_, StudyProgress())
    assert [len(row.epochs) for row in rows] == [2, 2]
    whole = run_study(replace(request_, folder=request_.folder.parent / "whole"), StudyProgress())[1]
    for resumed, uninterrupted in zip(rows, whole, strict=True):
        assert [point.test_top1 for point in resumed.epochs] == [point.test_top1 for point in uninterrupted.epochs]


@pytest.mark.usefixtures("unmeasured")
def test_other_settings_are_refused_in_the_same_folder(request_: StudyRequest) -> None:
    run_study(replace(request_, methods=("none",), settings={}), StudyProgress())
    with pytest.raises(InputError, match=r"other settings \(fingerprint, train_images\)"):
        run_study(replace(request_, train_images=100), StudyProgress())
    with pytest.raises(InputError, match=r"other settings \(training\)"):
        run_study(replace(request_, epochs=1), StudyProgress())


@pytest.mark.usefixtures("unmeasured")
def test_a_row_that_fails_is_kept_with_its_reason_and_tried_again(
    request_: StudyRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise InputError("expected luck", "try again")

    with monkeypatch.context() as patch:
        patch.setattr(study_rows.SeedRows, "_decompose_row", refuse)
        _, rows = run_study(request_, StudyProgress())
    assert [row.error for row in rows] == [None, "expected luck (try again)"]
    _, rows = run_study(request_, StudyProgress())
    assert [row.error for row in rows] == [None, "expected luck (try again)", None]


@pytest.mark.usefixtures("unmeasured")
def test_deployable_rows_of_a_failed_baseline_say_why(request_: StudyRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitnla.training.supervised.augment", lambda images, config, generator: images * float("nan"))
    _, rows = run_study(request_, StudyProgress())
    assert all(row.error is not None and "loss became nan" in row.error for row in rows)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].kind != "deployable"])
def test_methods_that_train_get_a_shape_of_their_own(name: str, request_: StudyRequest) -> None:
    _, rows = run_study(replace(request_, methods=(name,), settings={}, epochs=1), StudyProgress())
    row = rows[1]
    assert row.error is None
    assert len(row.epochs) == 1
    assert row.kind == METHODS[name].kind
    shaped = load_checkpoint(request_.folder / "runs" / f"{name}-seed0").config
    assert shaped != load_checkpoint(request_.folder / "runs" / "none-seed0").config


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"methods": ("nothing",)}, "unknown method 'nothing'"),
        ({"preset": "huge"}, "unknown preset 'huge'"),
        ({"settings": {"svd": {"rang": "4"}}}, "has no setting 'rang'"),
        ({"settings": {"cholesky": {"rank": "4"}}}, "expected a method of this study, got 'cholesky'"),
        ({"train_images": 1000}, "expected at most 216, got 1,000"),
        ({"data": "demo"}, "unknown split of data 'demo' 'train'"),
    ],
)
def test_bad_requests_leave_nothing_behind(request_: StudyRequest, change: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        run_study(replace(request_, **change), StudyProgress())  # type: ignore[arg-type]
    assert not request_.folder.exists()


@pytest.mark.usefixtures("unmeasured")
def test_the_command_writes_tables_and_a_page(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", "--data", f"npz:{archive}", "--methods", "svd", "--preset", "small", "--epochs", "1", "--threads", "1"]
    words += ["--set", "svd.rank=4", "-o", str(tmp_path / "out")]
    for extra in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *extra])
        assert not ended.value.code
    out = capsys.readouterr().out
    table, start = out[: out.index("{\n")], out.index("{\n")
    assert "svd rank=4" in table
    assert [row["label"] for row in json.loads(out[start:])["rows"]] == ["none", "svd rank=4"]
    with (tmp_path / "out" / "study.csv").open() as stream:
        assert [row["method"] for row in csv.DictReader(stream)] == ["none", "svd"]
    page = (tmp_path / "out" / "study.html").read_text()
    assert "svd rank=4" in page


def test_a_setting_without_a_method_is_refused(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["study", "--data", f"npz:{archive}", "--set", "rank=4"])
    assert ended.value.code == 2
    assert "expected METHOD.NAME=VALUE, got 'rank=4'" in capsys.readouterr().err
