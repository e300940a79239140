"""The experiment of token merging: plans, ratios, tables, and a whole run on the smallest packaged model."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import token_merging
from merging_plan import file_name, read_plan, tokens_share
from merging_rows import Rounds, Row, front, markdown, with_speeds

from vitnla.common.errors import InputError
from vitnla.common.jsonl import read_records
from vitnla.model import ViTConfig

CONFIG = ViTConfig.uniform(image_size=16, patch_size=4, channels=1, classes=5, dim=16, depth=4, heads=2)


@pytest.mark.parametrize(
    ("text", "counts", "metric"),
    [
        ("0", (0, 0, 0, 0), "tokens"),
        ("3", (3, 3, 3, 3), "tokens"),
        ("7", (7, 4, 2, 1), "tokens"),
        ("2@1-2", (0, 2, 2, 0), "tokens"),
        ("5@0-3/2:keys", (5, 0, 5, 0), "keys"),
    ],
)
def test_a_plan_says_how_many_and_by_what(text: str, counts: tuple[int, ...], metric: str) -> None:
    assert read_plan(text, CONFIG) == (counts, metric)
    assert not {"/", ":"} & set(file_name(text))


@pytest.mark.parametrize("text", ["", "-1", "3@", "3@2-1", "3@0-4", "3@0-3/0", "3:values"])
def test_a_plan_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="plan"):
        read_plan(text, CONFIG)


def test_the_share_of_tokens_counts_attention_and_mlp() -> None:
    assert tokens_share((0, 0), 17) == 1
    assert tokens_share((5, 2), 17) == pytest.approx((17 + 12 + 12 + 10) / (4 * 17))


def row(bundle: str, model: str, plan: str, top1: float, precision: str = "fp32") -> Row:
    return Row(
        run="r", created="now", command="c", bundle=bundle, model=model, plan=plan, merged_per_block=(0,), tokens_share=1,
        precision=precision, split="validation", images=100, top1=top1, top1_low=top1 - 0.1, top1_high=top1 + 0.1, agreement=1,
        parity=0, machine={},
    )  # fmt: skip


def test_ratios_are_to_the_same_model_unmerged_and_to_the_first_row() -> None:
    rows = [row("a0", "a", "0", 0.9), row("a3", "a", "3", 0.8), row("b0", "b", "0", 0.85), row("b3", "b", "3", 0.7)]
    rates = {("a0", "ort", 1): Rounds((10.0, 20.0, 10.0), (0, 0, 0)), ("a3", "ort", 1): Rounds((20.0, 40.0, 20.0), (0, 0, 0))}
    rates |= {("b0", "ort", 1): Rounds((30.0, 60.0, 30.0), (0, 0, 0)), ("b3", "ort", 1): Rounds((15.0, 30.0, 15.0), (0, 0, 0))}
    found = with_speeds(rows, rates)
    ratios = [
        (speed.ratio and speed.ratio.value, speed.against_first and speed.against_first.value)
        for each in found
        for speed in each.speeds
    ]
    assert ratios == [
        (None, None),
        (pytest.approx(2), pytest.approx(2)),
        (None, pytest.approx(3)),
        (pytest.approx(0.5), pytest.approx(1.5)),
    ]
    assert found[0].speeds[0].images_per_s == pytest.approx(12)  # of the whole time, not the mean of rates
    assert front(found, 1) == {("a0", "ort"), ("b0", "ort")}
    first, second = markdown(found).split("\n\n")[::2]
    assert first.splitlines()[3] == "| `a` | 3 | 1.00 | fp32 | 80.00 [70.00, 90.00] | 2.00× [2.00, 2.00] |"
    assert "**3.00×" in second
    assert "**1.50×" not in second
    assert markdown(rows).count("| `a` |") == 2  # accuracy alone


@pytest.mark.slow
def test_a_run_is_kept_and_goes_on_from_its_bundles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.jsonl"
    given = [
        "demo-small",
        "--plans",
        "2@0-1",
        "--images",
        "40",
        "--runtime",
        "ort",
        "-b",
        "1,2",
        "--seconds",
        "0.01",
        "--rounds",
        "3",
    ]
    monkeypatch.setattr(sys, "argv", ["token_merging.py", *given, "--work", str(tmp_path / "work"), "-o", str(output)])
    token_merging.main()
    made = {file: file.stat().st_mtime_ns for file in tmp_path.glob("work/*/model.onnx")}
    token_merging.main()
    assert made == {file: file.stat().st_mtime_ns for file in tmp_path.glob("work/*/model.onnx")}
    rows = read_records(output, Row, "this test")
    assert [each.plan for each in rows] == ["0", "2@0-1"] * 2
    assert len({each.run for each in rows}) == 2
    for each in rows:
        assert each.parity < 1e-4
        assert each.images == 40
        assert [(speed.runtime, speed.batch) for speed in each.speeds] == [("ort", 1), ("ort", 2)]
    assert rows[1].speeds[0].ratio is not None
    assert not list(tmp_path.glob("*.unfinished"))
    assert "| `demo-small` | 2@0-1 |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["token_merging.py", "--markdown", str(output)])
    token_merging.main()
    assert capsys.readouterr().out == markdown(rows[2:]) + "\n"
