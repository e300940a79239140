"""The report: every cell is in it, nothing in it is trusted, and it needs no network."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from runtime.report.findings import frontier
from runtime.report.formats import write
from runtime.results import Cell
from vitnla.common.errors import InputError


def cell(bundle: str, rate: float, top1: float, **changes: object) -> Cell:
    fields = {
        "run": "r1", "created": "2026-01-01T00:00:00+00:00", "command": "vitdeploy bench", "bundle": bundle, "bundle_path": "x",
        "method": "none" if bundle == "dense" else "svd", "runtime": "ort", "precision": "fp32", "batch": 1, "scenario": "single-stream",
        "images_per_s": rate, "samples_ms": (1.0, 1.1, 1.2), "top1": top1, "top1_low": top1 - 0.01, "top1_high": top1 + 0.01,
    }  # fmt: skip
    return Cell.model_validate(fields | changes)


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
