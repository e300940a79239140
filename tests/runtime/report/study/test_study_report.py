"""What seeds say together, and that tables and page say the same and trust nothing."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from runtime.report.study import write_study
from runtime.report.study.summary import Spread, epoch_s, failed, images_per_s, latency_ms, spread_of, summarise
from runtime.report.study.tables import accuracy_columns, cost_columns, epoch_columns, epochs_csv, rows_csv, study_tables
from runtime.results.study import EpochPoint, InferencePoint, StudyRow, StudySettings
from vitnla.common.measures import Cost

SETTINGS = StudySettings(
    data="<b>data</b>", fingerprint="f", train_images=10, test_images=5, calibration_images=2, preset="deck",
    training={"train": {"epochs": 2}}, batches=(1, 64), threads=2,
)  # fmt: skip


def row(label: str, seed: int, top1: float, epochs: tuple[float, ...] = (), train_s: float = 1.0, **changes: object) -> StudyRow:
    points = tuple(
        EpochPoint(epoch=number, train_s=train_s, train_loss=1.0, validation_top1=0.5, test_top1=value, kept=True)
        for number, value in enumerate(epochs, 1)
    )
    inference = tuple(InferencePoint(batch=batch, latency_ms=batch, images_per_s=1000.0, stable=batch == 1) for batch in (64, 1))
    fields = {
        "created": "now", "command": "vitdeploy study", "method": label.split()[0], "kind": "online", "config": {}, "label": label,
        "seed": seed, "epochs": points, "top1": top1, "inference": inference, "inference_peak_mb": 20.0,
        "macs": Cost(dense=100, model=50), "parameters": 1000,
    }  # fmt: skip
    return StudyRow.model_validate(fields | changes)


ROWS = [
    row("svd-online rank=2", 0, 0.6, (0.5, 0.6), train_s=4.0, training_peak_mb=30.0),
    row("none", 0, 0.5, (0.4, 0.5), train_s=2.0),
    row("none", 1, 0.7, (0.6, 0.7), train_s=1.0),
    row("svd-online rank=2", 1, 0.75, (0.7, 0.75), train_s=3.0),
    row("svd", 0, 0.45, decompose_s=0.25, kind="deployable"),
    row("<i>bad</i>", 0, 0.0, error="it <u>failed</u>"),
]


def test_differences_are_made_seed_by_seed() -> None:
    dense, online, svd = summarise(ROWS)
    assert (dense.label, online.label, svd.label) == ("none", "svd-online rank=2", "svd")
    assert dense.is_dense
    assert dense.spread(epoch_s) == Spread(1.5, 1.0, 2.0, 2)
    assert online.ratio(epoch_s) == Spread(2.5, 2.0, 3.0, 2)
    change = online.change(lambda one: one.top1)
    assert change is not None
    assert (change.mean, change.low, change.high) == pytest.approx((0.075, 0.05, 0.1))
    assert svd.change(lambda one: one.top1) == spread_of([0.45 - 0.5])
    assert svd.ratio(epoch_s) is None
    assert online.curve() == [(1, spread_of([0.5, 0.7])), (2, spread_of([0.6, 0.75]))]
    assert svd.curve() == []


def test_one_disturbed_epoch_does_not_set_the_time() -> None:
    points = row("none", 0, 0.5, (0.1, 0.2, 0.3)).epochs
    disturbed = (points[0].model_copy(update={"train_s": 100.0}), *points[1:])
    assert epoch_s(ROWS[1].model_copy(update={"epochs": disturbed})) == 1.0


def test_the_last_row_of_a_key_counts_and_failures_give_way() -> None:
    again = [*ROWS, row("svd", 0, 0.47), row("<i>bad</i>", 0, 0.4)]
    assert [one.rows[0].top1 for one in summarise(again)][2:] == [0.47, 0.4]
    assert failed(again) == []
    assert [one.key for one in failed([*ROWS, ROWS[-1]])] == ["<i>bad</i>, seed 0"]


def test_a_study_without_its_baseline_has_no_differences() -> None:
    (alone,) = summarise([ROWS[0]])
    assert alone.change(lambda one: one.top1) is None
    assert [column.heading for column in accuracy_columns([alone])] == ["Top-1 %", "Train s/epoch"]


def test_columns_show_means_with_ranges_where_seeds_differ() -> None:
    summaries = summarise(ROWS)
    shown = {column.heading: [column.show(one) for one in summaries] for column in accuracy_columns(summaries)}
    assert shown["Top-1 %"] == ["60.00 [50.00, 70.00]", "67.50 [60.00, 75.00]", "45.00"]
    assert shown["vs dense, points"] == ["–", "+7.50 [+5.00, +10.00]", "-5.00"]
    assert shown["Decompose s"] == ["–", "–", "0.250"]
    assert "Calibrate s" not in shown
    costs = {column.heading: [column.show(one) for one in summaries] for column in cost_columns(summaries)}
    assert costs["ms, batch 1"] == ["1.00"] * 3
    assert costs["MACs"] == ["0.50×"] * 3
    assert [column.show(summaries[0]) for column in epoch_columns(summaries)] == ["50.00 [40.00, 60.00]", "60.00 [50.00, 70.00]"]
    assert (latency_ms(ROWS[0]), images_per_s(ROWS[0])) == (1.0, 1000.0)


def test_csv_holds_every_row_and_epoch() -> None:
    rows = list(csv.DictReader(io.StringIO(rows_csv(ROWS))))
    assert [rows[0][name] for name in ("label", "seed", "top1")] == ["svd-online rank=2", "0", "0.6"]
    assert rows[-1]["error"] == "it <u>failed</u>"
    assert rows[4]["train_s_per_epoch"] == ""
    epochs = list(csv.DictReader(io.StringIO(epochs_csv(ROWS))))
    assert len(epochs) == 8
    assert (epochs[1]["epoch"], epochs[1]["test_top1"]) == ("2", "0.6")


def test_terminal_tables_name_failures_and_warnings() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(study_tables(ROWS))
    text = console.export_text()
    assert "svd-online rank=2" in text
    assert "<i>bad</i>, seed 0 could not be done: it <u>failed</u>" in text
    assert "none, seed 1, batch 64: the speed was not yet stable" in text


def test_page_holds_every_method_escaped_and_loads_nothing(tmp_path: Path) -> None:
    paths = write_study(SETTINGS, ROWS, tmp_path, html=True)
    assert [path.name for path in paths] == ["study.csv", "epochs.csv", "study.html"]
    page = paths[-1].read_text()
    for raw in ("<b>data</b>", "<i>bad</i>", "<u>failed</u>"):
        assert raw not in page
    assert all(text in page for text in ("svd-online rank=2", "it &lt;u&gt;failed&lt;/u&gt;", "67.50 [60.00, 75.00]", "Epoch 2"))
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']https?:", page)


def test_a_study_in_which_nothing_was_done_has_a_page_too(tmp_path: Path) -> None:
    assert "could not be done" in write_study(SETTINGS, ROWS[-1:], tmp_path, html=True)[-1].read_text().lower()
    assert [path.name for path in write_study(SETTINGS, ROWS, tmp_path / "plain", html=False)] == ["study.csv", "epochs.csv"]


def test_settings_and_rows_round_trip() -> None:
    assert StudySettings.model_validate_json(SETTINGS.to_json()) == SETTINGS
    for one in ROWS:
        assert StudyRow.model_validate_json(one.model_dump_json()) == one
