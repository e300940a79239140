"""An interrupted bench goes on: what was complete is not measured again, and another bench never takes it for its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.bench import run_bench
from runtime.bundle import Bundle
from runtime.journal import open_journal
from tests.bundles import agreeing_evaluation
from tests.test_runtime_bench import plan
from vitnla.data.dataset import Dataset


def test_an_interrupted_bench_goes_on(tiny_bundle: Bundle, tiny_data: Dataset, fake_runners: list[str], tmp_path: Path) -> None:
    chosen = plan(tiny_bundle, runtimes=("quick", "crash"))
    evaluation = agreeing_evaluation(tiny_bundle, tiny_data)
    results = tmp_path / "results.jsonl"

    def interrupt(done: int, total: int, text: str) -> None:
        if "round 3" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(chosen, evaluation, progress=interrupt, journal=open_journal(results, chosen, evaluation))

    kept = open_journal(results, chosen, evaluation)
    assert kept.rounds == 2
    texts: list[str] = []
    cells = run_bench(chosen, evaluation, progress=lambda done, total, text: texts.append(text), journal=kept)
    assert not [text for text in texts if "round 1 " in text or "round 2 " in text or "crash" in text]
    quick, crashed = cells
    first = kept.steps[0].slices[0]
    assert quick.samples_ms[: len(first.samples_ms)] == first.samples_ms
    assert len(quick.rounds_images_per_s) == 3
    assert quick.accuracy_images == 20
    assert "measured in more than one sitting: interrupted after round 2" in quick.warnings
    assert "SIGSEGV" in (crashed.error or "")

    scored = open_journal(results, chosen, evaluation)
    assert (scored.rounds, [list(step.scores) for step in scored.steps if step.scores]) == (3, [[0]])
    again = run_bench(chosen, evaluation, progress=lambda done, total, text: texts.append(text), journal=scored)
    assert (again[0].samples_ms, again[0].top1) == (quick.samples_ms, quick.top1)
    kept.remove()
    assert list(tmp_path.glob("*.unfinished")) == []


def test_another_bench_has_another_journal(tiny_bundle: Bundle, tiny_data: Dataset, tmp_path: Path) -> None:
    chosen, results = plan(tiny_bundle), tmp_path / "results.jsonl"
    evaluation = agreeing_evaluation(tiny_bundle, tiny_data)
    others = [replace(chosen, seconds=9.0), replace(chosen, batches=(3,)), replace(chosen, cpus=(0,)), replace(chosen, threads=2)]
    paths = {open_journal(results, one, evaluation).path for one in [chosen, *others]} | {
        open_journal(results, chosen, None).path
    }
    assert len(paths) == 6
    assert open_journal(results, replace(chosen, timeout_s=1.0), evaluation).path in paths


def test_a_journal_cut_in_the_middle_is_read_up_to_there(tiny_bundle: Bundle, fake_runners: list[str], tmp_path: Path) -> None:
    chosen, results = plan(tiny_bundle), tmp_path / "results.jsonl"
    journal = open_journal(results, chosen, None)
    run_bench(chosen, journal=journal)
    text = journal.path.read_text()
    journal.path.write_text(text[:-20])
    notices: list[str] = []
    cut = open_journal(results, chosen, None, notices.append)
    assert cut.rounds == 2
    assert "cut in the middle" in notices[0]
    (cell,) = run_bench(chosen, journal=cut)
    assert len(cell.rounds_images_per_s) == 3
    assert open_journal(results, chosen, None).rounds == 3
