"""An interrupted bench goes on: what was complete is not measured again, and another bench never takes it for its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.bench.journal import open_journal, sole_writer
from runtime.bench.run import run_bench
from runtime.bundle.schema import Bundle
from runtime.results.statistics import paired_ratio
from tests.helpers.bench_plans import plan
from tests.helpers.bundles import agreeing_evaluation, copy_bundle
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset

ROOT = Path(__file__).parents[3]


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
    assert not [text for text in texts if "round 1 " in text or "round 2 " in text]
    assert any("crash" in text for text in texts)  # it is tried again, and crashes again
    quick, crashed = cells
    first = kept.steps[0].slices[0]
    assert quick.samples_ms[: len(first.samples_ms)] == first.samples_ms
    assert len(quick.rounds_images_per_s) == 3
    assert quick.accuracy_images == 20
    assert "measured across an interruption, which came after round 2" in quick.warnings
    assert "SIGSEGV" in (crashed.error or "")

    scored = open_journal(results, chosen, evaluation)
    assert (scored.rounds, [list(step.scores) for step in scored.steps if step.scores]) == (3, [[0]])
    again = run_bench(chosen, evaluation, progress=lambda done, total, text: texts.append(text), journal=scored)
    assert (again[0].samples_ms, again[0].top1) == (quick.samples_ms, quick.top1)
    kept.remove()
    assert list(tmp_path.glob("*.unfinished")) == []


def test_what_failed_is_tried_again_and_compared_in_common_rounds_only(
    tiny_bundle: Bundle, fake_runners: list[str], tmp_path: Path
) -> None:
    bundle = copy_bundle(tiny_bundle, tmp_path / "bundle")
    chosen, results = plan(bundle, runtimes=("nap", "mends")), tmp_path / "results.jsonl"

    def interrupt(done: int, total: int, text: str) -> None:
        if "memory" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(chosen, progress=interrupt, journal=open_journal(results, chosen, None))
    first = open_journal(results, chosen, None)
    assert (first.rounds, first.steps[-1].failures[1].message) == (3, "expected a second try")

    steps: list[tuple[int, int, str]] = []
    nap, mended = run_bench(chosen, progress=lambda *step: steps.append(step), journal=first)
    assert [text.partition(": ")[2] for _, _, text in steps if "nap" in text and "round" in text] == [
        f"round {number} of 6" for number in (4, 5, 6)
    ]
    assert all(done <= total for done, total, _ in steps)
    assert (nap.error, mended.error) == (None, None)
    assert (nap.first_round, len(nap.rounds_images_per_s)) == (0, 6)
    assert (mended.first_round, len(mended.rounds_images_per_s)) == (3, 3)
    assert "failed before an interruption and was tried again: measured after round 3" in mended.warnings
    expected = paired_ratio(mended.rounds_images_per_s, nap.rounds_images_per_s[3:])
    assert mended.ratio is not None
    assert expected is not None
    assert (mended.ratio.value, mended.ratio.low) == (expected.value, expected.low)
    # A third sitting, after an interruption of the second, finds both whole.
    third = run_bench(chosen, journal=open_journal(results, chosen, None))
    assert [(one.first_round, len(one.rounds_images_per_s)) for one in third] == [(0, 6), (3, 3)]


def test_an_interruption_starts_another_process(tiny_bundle: Bundle, fake_runners: list[str], tmp_path: Path) -> None:
    """The second round of a pair was to be the first's process, which is gone."""
    chosen, results = replace(plan(tiny_bundle), rounds=6, processes=3), tmp_path / "results.jsonl"

    def interrupt(done: int, total: int, text: str) -> None:
        if "round 4" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_bench(chosen, progress=interrupt, journal=open_journal(results, chosen, None))
    (cell,) = run_bench(chosen, journal=open_journal(results, chosen, None))
    assert cell.rounds_process == (0, 0, 2, 3, 4, 4)


def test_two_benches_do_not_share_a_results_file(tmp_path: Path) -> None:
    results = tmp_path / "new" / "results.jsonl"
    with sole_writer(results):
        with pytest.raises(InputError, match=r"another bench is writing .*results\.jsonl") as refused, sole_writer(results):
            pass
        assert "--results-file" in refused.value.hint
        with sole_writer(tmp_path / "other.jsonl"):
            pass
        command = "import sys; from pathlib import Path; from runtime.bench.journal import sole_writer\nwith sole_writer(Path(sys.argv[1])): pass"
        ended = subprocess.run(
            [sys.executable, "-c", command, str(results)], capture_output=True, text=True, check=False, cwd=ROOT
        )
        assert "another bench is writing" in ended.stderr
    with sole_writer(results):
        pass


def test_another_bench_has_another_journal(tiny_bundle: Bundle, tiny_data: Dataset, tmp_path: Path) -> None:
    chosen, results = plan(tiny_bundle), tmp_path / "results.jsonl"
    evaluation = agreeing_evaluation(tiny_bundle, tiny_data)
    others = [
        replace(chosen, seconds=9.0),
        replace(chosen, batches=(3,)),
        replace(chosen, cpus=(0,)),
        replace(chosen, threads=2),
        replace(chosen, processes=2),
    ]
    paths = {open_journal(results, one, evaluation).path for one in [chosen, *others]} | {
        open_journal(results, chosen, None).path
    }
    assert len(paths) == 7
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
