"""Series, labels and the picture: what a reader sees is what was measured, and nothing covers anything."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from runtime.report.charts.axes import rate_range, ticks
from runtime.report.charts.label_placement import SIDES, Box, label_box, place_labels
from runtime.report.charts.scatter import Area, Scatter, charts
from runtime.report.charts.style import series_of, style_of
from runtime.report.formats import write
from runtime.report.text import fold
from tests.helpers.cells import cell, series
from vitnla.common.errors import InputError

AREA = Area(420, 310)
SVG = "{http://www.w3.org/2000/svg}"


def test_series_are_names_that_differ_only_in_numbers() -> None:
    found = series_of(["dense", "svd-0.5-uniform", "svd-0.8-uniform", "vit-16", "svd8", "svd9", "a-1-x-2", "a-3-x-4"])
    assert [one.name for one in found] == [
        "dense", "svd-{0.8,0.5}-uniform", "vit-16", "svd8", "svd9", "a-{3,1}-x-{4,2}",
    ]  # fmt: skip
    assert found[1].labels == {"svd-0.8-uniform": "0.8", "svd-0.5-uniform": "0.5"}
    assert [one.connected for one in found] == [False, True, False, False, False, False]


def test_a_series_has_one_colour_and_one_line_per_runtime() -> None:
    cells = [*series("ort"), *series("openvino", scale=1.3)]
    style = style_of(cells)
    assert len(style.colors) == 3
    assert len({style.color(one) for one in cells if one.bundle.startswith("demo-svd-0")}) == 1
    (first, second) = charts(cells, style, AREA)
    assert (first.title, second.title) == ("batch 1, ort", "batch 1, openvino")
    assert first.x_range == second.x_range
    assert [[round(x) for x, _ in line.positions] for line in first.series_lines] == [[363, 403, 462], [363, 403, 462]]


def test_a_cell_at_chance_stands_at_the_foot_and_says_its_accuracy() -> None:
    chart = charts(series(), style_of(series()), AREA)[0]
    (low,) = [point for point in chart.points if point.below]
    assert low.label == "0.5 (10.0 %)"
    assert (low.low, low.high) == (None, None)
    assert chart.y_range[0] < low.y < 92 < chart.y_range[1]
    assert all(position[1] > 90 for position in chart.frontier)


def boxes(chart: Scatter) -> list[Box]:
    (left, right), (low, high) = chart.x_range, chart.y_range
    return [
        label_box(
            (AREA.width * (point.x - left) / (right - left), AREA.height * (high - point.y) / (high - low)),
            point.label,
            point.side,
        )
        for point in chart.points
        if point.side is not None
    ]


def test_labels_of_a_series_are_all_there_apart_and_inside() -> None:
    for chart in charts([*series("ort"), *series("ort", batch=16)], style_of(series()), AREA):
        found = boxes(chart)
        assert len(found) == 7
        assert all(one.shared(other) == 0 for one, other in itertools.combinations(found, 2))
        assert all(box.left >= 0 and box.right <= AREA.width and box.top >= 0 and box.bottom <= AREA.height for box in found)


def test_a_label_without_room_is_left_out() -> None:
    area = Box(0, 0, 200, 200)
    assert place_labels([(100, 100)], ["name"], [], area) == [SIDES[0]]
    assert place_labels([(190, 100)], ["name"], [], area)[0] not in (None, SIDES[0])
    assert place_labels([(100, 100)], ["name"], [area], area) == [None]
    assert place_labels([(100, 100)], [""], [], area) == [None]


def test_throughput_starts_at_zero_only_where_a_cell_is_near_it() -> None:
    assert rate_range([cell("a", 300, 0.9), cell("b", 400, 0.9)]) == (288, 412)
    assert rate_range([cell("a", 30, 0.9), cell("b", 400, 0.9)])[0] == 0
    low, high = rate_range([cell("a", 300, 0.9)])
    assert low < 300 < high
    assert ticks(288, 412) == [300, 350, 400]


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("demo-svd-0.65", ["demo-svd-0.65"]),
        ("demo-svd-none-0.65-uniform", ["demo-svd-none-0.65-", "uniform"]),
        ("svd-0.5 · openvino", ["svd-0.5 · openvino"]),
        ("a-much-longer-name · openvino", ["a-much-longer-name ·", "openvino"]),
        ("x" * 45, ["x" * 20, "x" * 20, "x" * 5]),
    ],
)
def test_names_are_broken_at_their_joints(name: str, lines: list[str]) -> None:
    assert fold(name, 20) == lines


def test_picture_shows_every_cell_of_every_run(tmp_path: Path) -> None:
    other = [one.model_copy(update={"run": "r2"}) for one in series("openvino")]
    write([*series(), *other], tmp_path / "report.svg", "svg", "a <b> title")
    root = ET.parse(tmp_path / "report.svg").getroot()
    texts = ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]
    assert texts[0] == "a <b> title"
    assert {"0.8", "0.65", "0.5", "0.5 (10.0 %)", "dense", "images per second"} <= set(texts)
    assert len([path for path in root.iter(f"{SVG}path") if path.get("fill") == "#fff"]) == 2
    height = float(root.get("height", "0"))
    assert all(0 < float(element.get("y", "1")) < height for element in root.iter(f"{SVG}text"))
    assert not [value for element in root.iter() for value in element.attrib.values() if "http" in value]


def test_picture_needs_an_accuracy(tmp_path: Path) -> None:
    unscored = cell("dense", 1, 0.9).model_copy(update={"top1": None})
    with pytest.raises(InputError, match="expected results with a throughput and a top-1"):
        write([unscored], tmp_path / "report.svg", "svg", "title")
    assert list(tmp_path.iterdir()) == []
