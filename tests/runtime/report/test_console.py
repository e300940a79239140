"""The terminal's tables and the grouped warnings: readable at any width, and no number is ever broken."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from runtime.check.parity import ParityRow
from runtime.report.grouped_warnings import group_warnings
from runtime.report.terminal.cells import cells_table
from runtime.report.terminal.parity import parity_table
from tests.helpers.cells import cell, ratio, series

LONG = "demo-svd-centered-0.65-unifo"


def lines(renderable: object, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    found = console.file.getvalue().splitlines()
    assert max(map(len, found)) <= width
    return [line.rstrip() for line in found]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("runtimes", [("ort",), ("ort", "openvino", "torch-compile")])
def test_no_cell_is_folded_for_names_of_28_characters(width: int, runtimes: tuple[str, ...]) -> None:
    assert len(LONG) == 28
    cells = [
        cell(name, 1234.5, 0.93, runtime=runtime, batch=batch, ratio=ratio("dense/ort/fp32/b1", 1.4))
        for batch in (1, 16)
        for runtime in runtimes
        for name in ("dense", LONG)
    ]
    table = lines(cells_table(cells), width)
    assert len(table) == 2 + 2 + len(cells)
    rows = [line for line in table if line.startswith((LONG, "dense"))]
    assert len(rows) == len(cells)
    assert all("1.40× [1.30, 1.50]" in row and "93.00" in row for row in rows)
    assert ("Model MiB" in table[0]) == (width == 120)


def test_a_wide_terminal_shows_every_column() -> None:
    table = lines(cells_table(series()), 160)
    assert [heading in table[0] for heading in ("p50 ms", "p90 ms", "±", "Agree %", "Peak MiB", "Model MiB")] == [True] * 6
    assert "batch 1 on ort" in table


def test_longer_names_break_at_hyphens_and_numbers_stay_whole() -> None:
    name = "demo-" + "-".join(["segment"] * 6)
    table = lines(cells_table([cell(name, 1234.5, 0.93), cell("dense", 1200, 0.94)]), 60)
    row = table.index(next(line for line in table if line.startswith("demo-")))
    parts = [line.split(" ")[0] for line in table[row:-1]]
    assert len(parts) == 3
    assert all(part.endswith("-") for part in parts[:-1])
    assert "".join(parts) == name
    assert "1,234" in table[row]
    assert "93.00" in table[row]
    assert " " not in table[row + 1]


TUNED = "auto-0.6-by-openvino-int8-int8-openvino-symmetric"


def test_long_names_give_way_to_short_labels_that_are_spelled_out_below() -> None:
    cost = {"dense": 100, "model": 60}
    cells = [
        cell("dense", 100, 0.94),
        cell(TUNED, 200, 0.93, method="auto", precision="int8", macs=cost, ratio=ratio("dense/ort/fp32/b1", 2.0)),
        cell(f"{TUNED}-attention", 210, 0.92, method="auto", precision="int8", macs=cost, label="auto 0.6, int8 attention"),
    ]
    table = lines(cells_table(cells), 80)
    names = ("dense ", "auto 0.60 int8 ", "auto 0.6, int8 attention ")
    assert all(line.startswith(name) for line, name in zip(table[3:6], names, strict=True))
    assert f"auto 0.60 int8: {TUNED}" in table
    assert not any(line.startswith("dense: ") for line in table)


def test_a_ratio_that_is_inconclusive_is_marked_and_dimmed() -> None:
    wide = {"baseline": "dense/ort/fp32/b1", "value": 0.97, "low": 0.66, "high": 1.43}
    table = lines(cells_table([cell("dense", 100, 0.94), cell("svd", 97, 0.93, ratio=wide)]), 80)
    assert "0.97× [0.66, 1.43] ?" in table[4]
    assert any(line.startswith("? inconclusive: ") for line in table)
    clear = lines(cells_table([cell("dense", 100, 0.94), cell("svd", 150, 0.93, ratio=ratio("dense/ort/fp32/b1", 1.5))]), 80)
    assert not any("?" in line for line in clear)
    console = Console(file=io.StringIO(), width=80, color_system="standard", force_terminal=True)
    console.print(cells_table([cell("svd", 97, 0.93, ratio=wide)]))
    assert isinstance(console.file, io.StringIO)
    assert "\x1b[2m0.97× [0.66, 1.43] ?\x1b[0m" in console.file.getvalue()


def test_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    assert any("[red]x" in line for line in lines(cells_table([cell("[red]x", 1, 0.9)]), 80))


def test_warnings_are_one_line_per_kind_with_ranges() -> None:
    cells = [
        cell(f"svd-{share}", 1, 0.9, warnings=(f"variation is {share}%, above 2.5%", "not stable"))
        for share in (3.1, 12.0, 5.0)
    ]  # fmt: skip
    cells.append(cell("dense", 1, 0.9, warnings=("10,000 images, and drift of -5.7% on svd-0.65",)))
    cells.append(cell("more", 1, 0.9, warnings=("2,000 images, and drift of +6.4% on svd-0.65",)))
    found = [(notice.text, notice.extent) for notice in group_warnings(cells)]
    assert found == [
        ("variation is 3.1% to 12.0%, above 2.5%", "3 cells"),
        ("not stable", "3 cells"),
        ("2,000 to 10,000 images, and drift of -5.7% to +6.4% on svd-0.65", "dense/ort/fp32/b1, more/ort/fp32/b1"),
    ]
    assert group_warnings(cells)[0].cells["svd-12.0/ort/fp32/b1"] == "12.0%"
    assert group_warnings(cells[:3])[0].extent == "all 3 cells"
    assert group_warnings([cell("dense", 1, 0.9, error="it crashed", warnings=("not stable",))]) == []


def test_failures_are_named_below_the_table() -> None:
    failed = cell("broken", 1, 0, error="it crashed")
    assert lines(cells_table([failed]), 80) == ["broken/ort/fp32/b1 could not be run: it crashed"]


def test_parity_fits_eighty_columns() -> None:
    row = ParityRow(
        bundle=LONG, bundle_path="x", runtime="torch-compile", precision="fp32", tolerance=1e-4, max_rel=3.2e-6,
        top1=0.9322, agreement=0.9955, lost=12, gained=1034,
    )  # fmt: skip
    table = lines(parity_table([row]), 80)
    assert len(table) == 3
    assert all(text in table[2] for text in (LONG, "torch-compile", "met", "3.2e-06", "1e-04"))
    assert "1,034" in lines(parity_table([row]), 120)[2]
