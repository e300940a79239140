"""The report: every cell is in it, nothing in it is trusted, and it needs no network."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from runtime.report.charts.figures import losses_figure, rank_figure
from runtime.report.charts.scatter import Area, charts
from runtime.report.charts.style import style_of
from runtime.report.formats import write
from runtime.report.grouping import panels, sections, with_labels
from runtime.report.headline import frontier, headline, role
from runtime.report.html.page import view
from runtime.report.loss_attribution import attribute_losses
from runtime.report.tables import columns_for, unsteady_text
from runtime.results.schema import Cell, read_cells
from tests.helpers.cells import cell, ratio
from vitnla.common.errors import InputError
from vitnla.common.measures import LayerRow

CELLS = [
    cell("dense", 100, 0.93),
    cell("<script>alert(1)</script>", 150, 0.92),
    cell("slow", 90, 0.91),
    cell("broken", 1, 0, error="it crashed"),
]


def test_page_holds_every_cell_escaped_and_loads_nothing(tmp_path: Path) -> None:
    write(CELLS, tmp_path / "report.html", "html", "a <b> title")
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "a <b> title" not in page
    assert all(name in page for name in ("dense", "slow", "broken", "it crashed"))
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']https?:", page)


def test_frontier_is_what_no_cell_beats() -> None:
    cells = [cell(f"b{i}", rate, top1) for i, (rate, top1) in enumerate([(1, 0.9), (2, 0.8), (3, 0.85), (4, 0.7), (0.5, 0.9)])]
    assert [found.bundle for found in frontier(cells)] == ["b0", "b2", "b3"]


def test_other_forms_hold_every_cell(tmp_path: Path) -> None:
    for form in ("csv", "json", "md"):
        write(CELLS, tmp_path / form, form, "title")
    assert [row["bundle"] for row in csv.DictReader(io.StringIO((tmp_path / "csv").read_text()))] == [one.bundle for one in CELLS]
    assert [Cell.model_validate(one) for one in json.loads((tmp_path / "json").read_text())["cells"]] == CELLS
    assert "it crashed" in (tmp_path / "md").read_text()


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected results"):
        write([], tmp_path / "x", "html", "title")
    with pytest.raises(InputError, match="unknown report format 'pdf'"):
        write(CELLS, tmp_path / "x", "pdf", "title")
    assert list(tmp_path.iterdir()) == []


def test_rank_map_tells_ranks_widths_and_dense_linears_apart() -> None:
    fields = {"block": 0, "full_rank": 16, "macs": 1, "parameters": 1, "relative_error": 0.1, "retained_energy": 0.9}
    rows = [
        LayerRow.model_validate({**fields, "linear": "qkv", "rank": 4}),  # as stored before widths could change
        LayerRow.model_validate({**fields, "linear": "fc1", "rank": None, "shape": (8, 16), "dense_shape": (32, 16)}),
        LayerRow.model_validate({**fields, "linear": "proj", "rank": None, "shape": (16, 16), "dense_shape": (16, 16)}),
    ]
    (drawn,) = rank_figure(rows).data
    assert [list(line) for line in drawn.text] == [["4"], ["8 × 16"], ["dense"]]
    assert [list(line) for line in drawn.z] == [[0.25], [0.25], [None]]
    assert "8 × 16 of 32 × 16, 90.00 % of the energy" in drawn.hovertext[1][0]


def test_controls_are_told_by_method_precision_and_macs() -> None:
    half, whole = {"dense": 100, "model": 50}, {"dense": 100, "model": 100}
    cells = [
        cell("dense", 1, 0.9, macs=whole),
        cell("dense-int8", 1, 0.9, method="none", precision="int8", macs=whole),
        cell("small", 1, 0.9, method="none", macs={"dense": 40, "model": 40}),
        cell("dense-fp16", 1, 0.9, method="none", precision="fp16", macs=whole),
        cell("svd", 1, 0.9, macs=half),
    ]
    assert [role(one, cells) for one in cells] == ["control: dense", "control: int8", "control: smaller", None, None]
    assert [role(one, cells[:-1]) for one in cells[:-1]] == [None] * 4


def test_the_answer_of_a_tuning_is_what_the_report_is_about() -> None:
    gain = ratio("dense/ort/fp32/b1", 3.0)
    cells = [
        cell("dense", 1, 0.9),
        cell("deep", 4, 0.895, method="auto", ratio=ratio("dense/ort/fp32/b1", 4.0)),
        cell("mild", 3, 0.898, method="auto", answer={"question": "the fastest within 0.5 points", "gains": [gain]}),
    ]
    asked = "Asked for the fastest within 0.5 points, vitdeploy tune chose "
    expected = "mild on ort at batch 1: 3.00× (95 % interval 2.90 to 3.10) of dense/ort/fp32/b1."
    assert headline(cells) == asked + expected
    assert [role(one, cells) for one in cells] == ["control: dense", None, "answer"]
    none = [cell("dense", 1, 0.9, answer={"question": "the fastest within 0.5 points", "gains": []}), *cells[1:2]]
    assert headline(none) == f"{asked}dense on ort at batch 1, which has no decomposition."
    (chart,) = charts(cells, style_of(cells), Area(600, 400))
    assert [point.label.startswith("answer:") for point in chart.points] == [False, False, True]


WIDE = {"baseline": "dense/ort/fp32/b1", "value": 0.97, "low": 0.66, "high": 1.43}


def test_an_inconclusive_ratio_is_called_so_in_every_form(tmp_path: Path) -> None:
    cells = [
        cell("dense", 100, 0.94),
        cell("svd", 97, 0.93, ratio=WIDE),
        cell("pca", 99, 0.93, ratio=ratio("dense/ort/fp32/b1", 0.8)),
    ]
    assert headline(cells) == (
        "Nothing was faster than its baseline: of 2 compared cells, 0 showed no difference, 1 was inconclusive and 1 was slower."
    )
    texts = {}
    for form in ("html", "md", "csv", "json"):
        write(cells, tmp_path / form, form, "title")
        texts[form] = (tmp_path / form).read_text()
    assert '<b class="inconclusive">0.97×</b>' in texts["html"]
    assert texts["html"].count('<small class="tag">inconclusive</small>') == 1
    assert "| 0.97× [0.66, 1.43] ? | inconclusive |" in texts["md"]
    assert [row["verdict"] for row in csv.DictReader(io.StringIO(texts["csv"]))] == ["", "inconclusive", "slower"]
    assert [one["ratio"] and one["ratio"]["verdict"] for one in json.loads(texts["json"])["cells"]] == [
        None,
        "inconclusive",
        "slower",
    ]
    gains = [{**WIDE, "value": 1.03, "low": 0.8, "high": 1.3}]
    chosen = [cell("dense", 1, 0.9), cell("mild", 3, 0.898, answer={"question": "the fastest", "gains": gains})]
    assert headline(chosen).endswith("1.03× (95 % interval 0.80 to 1.30, inconclusive) of dense/ort/fp32/b1.")


LONG = "auto-0.6-by-openvino-int8-int8-openvino-symmetric"


def test_labels_are_short_and_unique_within_a_section() -> None:
    cost = {"dense": 100, "model": 60}
    tuned = {"method": "auto", "precision": "int8", "macs": cost}

    def labels(*cells: Cell) -> list[str]:
        return [one.display_name for one in with_labels(cells)]

    assert labels(cell("svd", 1, 0.9, macs=cost), cell(LONG, 1, 0.9, **tuned)) == ["svd", "auto 0.60 int8"]
    assert labels(cell(f"{LONG}-dense", 1, 0.9, method="none", precision="int8")) == ["dense int8"]
    assert labels(cell(LONG, 1, 0.9, **tuned), cell(f"{LONG}-2", 1, 0.9, **tuned)) == ["auto 0.60 int8 #1", "auto 0.60 int8 #2"]
    assert labels(cell("svd", 1, 0.9, label="s"), cell("pca", 1, 0.9, label="p"), cell("none", 1, 0.9, label="p")) == [
        "s",
        "pca",
        "none",
    ]
    assert labels(cell("svd", 1, 0.9, label="dense"), cell("dense", 1, 0.9)) == ["svd", "dense"]
    twice = [cell(LONG, 1, 0.9, **tuned), cell(LONG, 1, 0.9, batch=16, **tuned)]
    assert labels(*twice) == ["auto 0.60 int8"] * 2
    (section,) = sections(twice)
    assert [one.bundle for one in section.cells] == [LONG, LONG]
    assert len({one.display_key for one in section.cells}) == 2


def test_headline_and_page_show_labels_and_files_keep_names(tmp_path: Path) -> None:
    tuned = {"method": "auto", "precision": "int8", "macs": {"dense": 100, "model": 60}, "runtime": "openvino"}
    dense = f"{LONG}-dense"
    gain = ratio(f"{dense}/openvino/int8/b1", 1.5)
    cells = [
        cell(dense, 2, 0.9, method="none", precision="int8", runtime="openvino"),
        cell(LONG, 3, 0.898, answer={"question": "the fastest within 1 point", "gains": [gain]}, ratio=gain, **tuned),
    ]
    (section,) = sections(cells)
    assert headline(section.cells) == (
        "Asked for the fastest within 1 point, vitdeploy tune chose auto 0.60 int8 on openvino at batch 1: "
        "1.50× (95 % interval 1.40 to 1.60) of dense int8/openvino/int8/b1."
    )
    for form in ("html", "md", "csv", "svg"):
        write(cells, tmp_path / form, form, "title")
    page = (tmp_path / "html").read_text()
    assert f'<span class="bundle" title="{LONG}">' in page
    assert f">{LONG}" not in page
    markdown = (tmp_path / "md").read_text()
    assert "| auto 0.60 int8 |" in markdown
    assert f"auto 0.60 int8: {LONG}" in markdown
    assert [row["bundle"] for row in csv.DictReader(io.StringIO((tmp_path / "csv").read_text()))] == [dense, LONG]
    assert LONG not in (tmp_path / "svg").read_text()


def test_badge_says_speed_and_cost_of_one_run(tmp_path: Path) -> None:
    cells = [cell("dense", 100, 0.94), cell("svd", 150, 0.938, ratio=ratio("dense/ort/fp32/b1", 1.5))]
    write(cells, tmp_path / "badge.svg", "badge", "title")
    assert "1.50× at -0.20 points" in (tmp_path / "badge.svg").read_text()
    write(cells[:1], tmp_path / "none.svg", "badge", "title")
    assert "no speed-up within 1 point" in (tmp_path / "none.svg").read_text()
    with pytest.raises(InputError, match="one run on one machine"):
        write([*cells, cell("dense", 1, 0.9, run="r2")], tmp_path / "two.svg", "badge", "title")


THERE = {"split": "test", "fingerprint": "f", "images": 500, "dense_top1": 0.94, "top1": 0.93, "agreement": 0.98}


def stage(name: str, top1: float, **changes: object) -> dict[str, object]:
    """What a step of an export changed."""
    fields: dict[str, object] = {
        "stage": name, "before": "before", "after": f"after {name}", "top1": top1, "lost_points": 1.0, "lost": 9, "gained": 4,
        "flips": 21, "flip_margin": None, "typical_margin": 0.9, "logit_error": 0.07,
    }  # fmt: skip
    return fields | changes


def test_losses_are_split_only_where_the_same_number_of_images_was_measured(tmp_path: Path) -> None:
    cells = [
        cell("svd", 1, 0.92, export_accuracy=THERE, accuracy_images=500),
        cell("part", 1, 0.92, export_accuracy=THERE, accuracy_images=100),
    ]
    (one,) = attribute_losses(cells)
    assert (one.bundle, one.steps, one.total) == ("svd", pytest.approx({"export": -1, "runtime": -1}), pytest.approx(-2))
    write(cells, tmp_path / "report.html", "html", "title")
    assert "since these results do not tell them apart" in (tmp_path / "report.html").read_text()
    write(cells[1:], tmp_path / "part.html", "html", "title")
    assert "Not divided among steps and runtime" in (tmp_path / "part.html").read_text()


def test_losses_by_step_add_up_whatever_runtime_the_export_asked(tmp_path: Path) -> None:
    stages = [stage("decomposition", 0.935), stage("precision", 0.931), stage("runtime", 0.93)]
    cells = [
        cell("svd-int8", 1, 0.92, export_accuracy=THERE, accuracy_images=500, losses=stages),
        cell("svd-int8", 1, 0.925, runtime="openvino", export_accuracy=THERE, accuracy_images=500, losses=stages[:2]),
        cell("unscored", 1, 0.9, losses=stages[:1]).model_copy(update={"top1": None}),
    ]
    here, there = attribute_losses(cells)
    assert here.steps == pytest.approx({"decomposition": -0.5, "precision": -0.4, "runtime": -1.1})
    assert there.steps == pytest.approx({"decomposition": -0.5, "precision": -0.4, "runtime": -0.6})
    assert all(sum(one.steps.values()) == pytest.approx(one.total) for one in (here, there))
    bars = [trace for trace in losses_figure([here, there]).data if trace.type == "bar"]
    assert [list(bar.x) for bar in bars] == [
        pytest.approx([-0.5, -0.5]),
        pytest.approx([-0.4, -0.4]),
        pytest.approx([-0.6, -1.1]),
    ]
    write(cells, tmp_path / "report.html", "html", "title")
    page = (tmp_path / "report.html").read_text()
    assert "since these results do not tell them apart" not in page
    assert page.count(">after decomposition<") == 2  # one row per bundle, not per cell
    write(cells[2:], tmp_path / "unscored.html", "html", "title")
    assert "these are the steps of the exports" in (tmp_path / "unscored.html").read_text()
    write([cell("svd", 1, 0.9)], tmp_path / "old.html", "html", "title")
    assert "Where accuracy was lost" not in (tmp_path / "old.html").read_text()


def test_columns_appear_only_where_a_cell_has_something_for_them() -> None:
    plain = cell("dense", 10, 0.9)
    assert {"rate", "bound", "utilisation", "device_mb", "unsteady"}.isdisjoint(
        column.key for column in columns_for([plain.model_copy(update={"samples_ms": (1.0, 1.0, 1.0)})])
    )
    server = {"rate": 120.0, "searched": True, "p99_bound_ms": 20.0, "met": True, "utilisation": 0.71, "unserved": 0}
    cells = [
        cell("dense", 10, 0.9, scenario="server", server=server),
        cell("svd", 10, 0.9, scenario="server", server=server | {"met": False}, device_mb=300.0),
    ]
    shown = {column.key: [column.text(one) for one in cells] for column in columns_for(cells)}
    assert shown["rate"] == ["120", "120"]
    assert shown["bound"] == ["20: met", "20: missed"]
    assert shown["utilisation"] == ["71", "71"]
    assert shown["device_mb"] == ["–", "300"]
    assert "unsteady" not in shown  # arrivals are meant to vary
    shaky = cell("svd", 10, 0.9, samples_ms=(1.0, 1.2, 1.4), rounds_images_per_s=(10, 10, 8))
    assert unsteady_text(shaky) == "CV 16.7 %, drift -20 %"


def test_cells_of_searched_batch_sizes_stand_together() -> None:
    tried = ({"batch": 8, "images_per_s": 10.0},)
    cells = [
        cell("dense", 10, 0.9, batch=8, scenario="offline", batch_search=tried),
        cell("svd", 12, 0.9, batch=32, scenario="offline", batch_search=tried),
    ]
    (panel,) = panels(cells)
    assert (panel.title, panel.cells) == ("best batch", tuple(cells))
    (section,) = sections(cells)
    shown = view(section)
    assert "batch" in [column.key for column in shown.columns]
    assert shown.controls[0].present
    assert shown.groups[0].rows[0].role == "control: dense"


def test_layers_are_told_in_numbers(tmp_path: Path) -> None:
    row = LayerRow(block=3, linear="fc1", rank=48, full_rank=192, macs=1234567, parameters=7654321, relative_error=0.12345,
                   retained_energy=0.98765, shape=(768, 192), dense_shape=(768, 192))  # fmt: skip
    write([cell("svd", 1, 0.9, layers=(row,))], tmp_path / "report.html", "html", "title")
    page = (tmp_path / "report.html").read_text()
    for text in ("1,234,567", "7,654,321", ">0.1235<", ">98.77<", ">768<"):
        assert text in page


def test_results_of_before_the_losses_are_still_read(tmp_path: Path) -> None:
    old = cell("svd", 1, 0.92, export_accuracy=THERE, accuracy_images=500).model_dump(mode="json", exclude={"losses"})
    (tmp_path / "old.jsonl").write_text(json.dumps(old) + "\n")
    (read,) = read_cells(tmp_path / "old.jsonl")
    assert attribute_losses([read])[0].steps.keys() == {"export", "runtime"}


def test_headline_without_accuracy_does_not_speak_of_it() -> None:
    cells = [
        cell("dense", 100, 0.9).model_copy(update={"top1": None}),
        cell("svd", 150, 0.9, ratio=ratio("dense/ort/fp32/b1", 1.5)).model_copy(update={"top1": None}),
    ]
    assert "top-1 not measured, so what it costs in accuracy is not known" in headline(cells)
    assert "within one point" not in headline(cells)


def test_headline_of_searched_rates_names_the_highest_that_held() -> None:
    def serving(bundle: str, rate: float, met: bool | None) -> Cell:
        server = {"rate": rate, "searched": True, "p99_bound_ms": 20.0, "met": met, "utilisation": 0.7, "unserved": 0}
        return cell(bundle, rate, 0.9, scenario="server", server=server)

    cells = [serving("dense", 220, True), serving("svd", 330, True), serving("svd-int8", 500, False)]
    said = "With a p99 of at most 20 ms, svd on ort takes the most queries: 330 a second, the dense model 220."
    assert headline(cells).startswith(said)
    assert headline(cells[2:]).startswith("No cell was compared")
