"""Results files: what is written is read back, and damage is named by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.results.schema import MAX_INTERVAL_WIDTH, Latency, Ratio, append_cells, read_cells
from tests.helpers.cells import bare_cell as cell
from vitnla.common.errors import InputError


def test_appended_cells_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.jsonl"
    full = cell(
        images_per_s=10.5, latency_ms=Latency(p50=1.0, p90=2.0, p99=None), samples_ms=(1.0, 2.0), facts={"providers": ["cpu"]},
        ratio=Ratio(baseline="dense", value=1.5, low=1.2, high=1.9), warnings=("drift",),
    )  # fmt: skip
    append_cells(path, [full])
    append_cells(path, [cell(error="it crashed")])
    assert read_cells(path) == [full, cell(error="it crashed")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no results"),
        ("{}\n", "line 1: run: Field required"),
        (cell().model_dump_json() + "\n" + cell().model_dump_json()[:40], "line 2: the record: Invalid JSON"),
        (cell().model_dump_json().replace('"schema_version":1', '"schema_version":2'), "line 1: schema_version"),
        (cell().model_dump_json().replace('"batch"', '"bach"'), "line 1: batch: Field required"),
    ],
)
def test_damage_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_cells(path)


def test_missing_and_unwritable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_cells(tmp_path / "none.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        append_cells(tmp_path / "file" / "results.jsonl", [cell()])


@pytest.mark.parametrize(("low", "high", "verdict"), [(1.1, 1.3, "faster"), (0.8, 0.9, "slower"), (0.9, 1.1, "no difference")])
def test_an_interval_that_holds_one_is_no_difference(low: float, high: float, verdict: str) -> None:
    assert Ratio(baseline="dense", value=(low + high) / 2, low=low, high=high).verdict == verdict


def test_the_verdict_asks_for_more_than_the_printed_interval() -> None:
    """1 is left out by the interval, but not by one half again as wide; or the difference is below one percent."""
    assert Ratio(baseline="dense", value=1.05, low=1.01, high=1.09).verdict == "no difference"
    assert Ratio(baseline="dense", value=1 / 1.05, low=1 / 1.09, high=1 / 1.01).verdict == "no difference"
    assert Ratio(baseline="dense", value=1.005, low=1.004, high=1.006).verdict == "no difference"
    assert Ratio(baseline="dense", value=1.05, low=1.02, high=1.08).verdict == "faster"


@pytest.mark.parametrize("value", [0.5, 1.0, 1.2])
def test_an_interval_too_wide_to_tell_a_difference_is_inconclusive(value: float) -> None:
    """On both sides of the limit: a share of the value, whether or not the printed interval alone holds 1."""
    for factor, verdict in ((0.99, "no difference"), (1.01, "inconclusive")):
        half = factor * MAX_INTERVAL_WIDTH / 2
        low, high = 1 - half, 1 + half
        assert Ratio(baseline="dense", value=1.0, low=low, high=high).verdict == verdict
    wide = Ratio(baseline="dense", value=value, low=value * 0.8, high=value * 1.25)
    assert wide.verdict == {0.5: "slower", 1.0: "inconclusive", 1.2: "inconclusive"}[value]
    assert wide.differs == (value == 0.5)


def test_a_busy_machine_with_few_rounds_gives_no_verdict() -> None:
    assert Ratio(baseline="dense", value=0.97, low=0.66, high=1.43).verdict == "inconclusive"
    assert Ratio(baseline="dense", value=1.28, low=1.02, high=1.6).verdict == "inconclusive"


def test_the_verdict_is_stored_and_computed_anew_when_read(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_cells(path, [cell(ratio=Ratio(baseline="dense", value=0.97, low=0.66, high=1.43))])
    assert '"verdict":"inconclusive"' in path.read_text()
    path.write_text(path.read_text().replace('"verdict":"inconclusive"', '"verdict":"no difference"'))
    (read,) = read_cells(path)
    assert read.ratio is not None
    assert read.ratio.verdict == "inconclusive"
    path.write_text(path.read_text().replace(',"verdict":"no difference"', ""))
    assert read_cells(path) == [read]  # as files of earlier versions have it


def test_a_cut_last_line_is_left_out_with_a_notice_and_removed_by_the_next_run(tmp_path: Path) -> None:
    path, notices = tmp_path / "results.jsonl", list[str]()
    path.write_text(cell().model_dump_json() + "\n" + cell(bundle="lost").model_dump_json()[:70])
    assert read_cells(path, notices.append) == [cell()]
    assert "line 2 is cut in the middle" in notices[0]
    append_cells(path, [cell(bundle="next")], notices.append)
    assert "removed the last line" in notices[1]
    assert read_cells(path) == [cell(), cell(bundle="next")]


def test_a_last_line_that_only_lacks_its_end_is_kept(tmp_path: Path) -> None:
    path, notices = tmp_path / "results.jsonl", list[str]()
    path.write_text(cell().model_dump_json())
    append_cells(path, [cell(bundle="next")], notices.append)
    assert [one.bundle for one in read_cells(path, notices.append)] == ["svd", "next"]
    assert notices == []


def test_damage_before_the_last_line_is_an_error_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(cell().model_dump_json()[:70] + "\n" + cell().model_dump_json())
    with pytest.raises(InputError, match="line 1"):
        read_cells(path, lambda notice: None)
