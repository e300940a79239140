"""The bench on quick and on misbehaving runners: cells, baselines, accuracy, errors and progress."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from runtime.bench.cells import choose_baseline
from runtime.bench.plan import BenchPlan, Target, scenario_named
from runtime.bench.run import run_bench
from runtime.bundle.schema import Bundle
from runtime.results.schema import append_cells, read_cells
from runtime.runners.base import Images
from tests.helpers.bundles import agreeing_evaluation, copy_bundle
from tests.runtime.results.test_schema import cell
from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.data.dataset import Dataset

MEMORY = {"greedy": "Unable to allocate", "killed": "SIGKILL: nobody here sent it, so the system was probably out of memory"}


def plan(*bundles: Bundle, runtimes: tuple[str, ...] = ("quick",), batches: tuple[int, ...] = (2,)) -> BenchPlan:
    targets = tuple(Target(name) for name in runtimes)
    return BenchPlan(bundles, targets, batches, threads=1, seconds=0.03, min_count=6, rounds=3, timeout_s=20)


def test_cells_are_whole_and_survive_a_file(
    tiny_bundle: Bundle, tiny_low_rank_bundle: Bundle, tiny_data: Dataset, fake_runners: list[str], tmp_path: Path
) -> None:
    steps: list[tuple[int, int, str]] = []
    chosen = plan(tiny_low_rank_bundle, tiny_bundle, batches=(1, 2))
    cells = run_bench(
        chosen, agreeing_evaluation(tiny_bundle, tiny_data), command="vitdeploy bench", progress=lambda *step: steps.append(step)
    )
    dense, svd = tiny_bundle.name, tiny_low_rank_bundle.name
    assert [one.key for one in cells] == [f"{name}/quick/fp32/b{batch}" for batch in (1, 2) for name in (svd, dense)]
    assert len({one.run for one in cells}) == 1
    for one in cells:
        assert one.error is None
        assert one.images_per_s is not None
        assert one.images_per_s > 0
        assert len(one.rounds_images_per_s) == 3
        assert len(one.samples_ms) >= 6
        assert one.latency_ms is not None
        assert min(one.samples_ms) <= one.latency_ms.p50 <= max(one.samples_ms)
        assert one.peak_rss_mb is not None
        assert one.accuracy_images == len(tiny_data.split("test"))
        assert one.machine["cores_usable"] >= 1
        if one.bundle == svd:
            assert one.ratio is not None
            assert one.ratio.baseline == f"{dense}/quick/fp32/b{one.batch}"
            assert one.ratio.low <= one.ratio.value <= one.ratio.high
        else:
            assert one.ratio is None
    assert steps[-1][0] == steps[-1][1]
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    append_cells(tmp_path / "results.jsonl", cells)
    assert read_cells(tmp_path / "results.jsonl") == cells


def test_rounds_are_divided_among_processes(tiny_bundle: Bundle, tiny_data: Dataset, fake_runners: list[str]) -> None:
    steps: list[tuple[int, int, str]] = []
    chosen = replace(plan(tiny_bundle, batches=(1, 2)), rounds=5, processes=3)
    cells = run_bench(chosen, agreeing_evaluation(tiny_bundle, tiny_data), progress=lambda *step: steps.append(step))
    for one in cells:
        assert one.rounds_process == (0, 0, 2, 2, 4)
        assert len(one.rounds_images_per_s) == 5
        assert one.load_s is not None
        assert one.top1 is not None
    texts = [text.partition(": ")[2] for _, _, text in steps if "batch 1" in text]
    assert texts[:8] == ["loading", *(f"round {number} of 5" for number in (1, 2)), "loading",
                         *(f"round {number} of 5" for number in (3, 4)), "loading", "round 5 of 5"]  # fmt: skip
    assert all(done <= total for done, total, _ in steps)


def test_accuracy_and_agreement_are_those_of_the_runtime(tiny_bundle: Bundle, tiny_data: Dataset) -> None:
    """Four of twenty labels are wrong on purpose; ONNX Runtime gives the dense model's own classes."""
    (found,) = run_bench(plan(tiny_bundle, runtimes=("ort",)), agreeing_evaluation(tiny_bundle, tiny_data))
    assert found.top1 == pytest.approx(16 / 20)
    assert found.top1_low is not None
    assert found.top1_high is not None
    assert found.top1_low < 0.8 < found.top1_high
    assert found.agreement == 1.0


def test_agreement_needs_the_same_images(tiny_bundle: Bundle, tiny_data: Dataset, fake_runners: list[str]) -> None:
    (found,) = run_bench(
        plan(tiny_bundle), replace(agreeing_evaluation(tiny_bundle, tiny_data), fingerprint=lambda first: "others")
    )
    assert found.top1 is not None
    assert found.agreement is None
    assert any("agreement is not known" in warning for warning in found.warnings)


def test_agreement_is_known_for_the_first_images_of_what_the_export_saw(tiny_bundle: Bundle, tiny_data: Dataset) -> None:
    whole = agreeing_evaluation(tiny_bundle, tiny_data)
    first = replace(whole, labels=whole.labels[:7], batches=lambda bundle: [np.concatenate(list(whole.batches(bundle)))[:7]])
    (found,) = run_bench(plan(tiny_bundle, runtimes=("ort",)), first)
    assert (found.accuracy_images, found.agreement) == (7, 1.0)


def test_offline_has_throughput_and_no_latency(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    (found,) = run_bench(replace(plan(tiny_bundle), scenario=scenario_named("offline")))
    assert found.images_per_s is not None
    assert (found.latency_ms, found.samples_ms) == (None, ())
    assert (found.top1, found.agreement) == (None, None)


def test_one_bad_cell_spoils_no_other(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    chosen = replace(
        plan(tiny_bundle, runtimes=("crash", "hang", "quick", "broken", "absent", "greedy", "killed")), timeout_s=5.0
    )
    found = {one.runtime: one for one in run_bench(chosen)}
    errors = {name: one.error for name, one in found.items()}
    assert errors.pop("quick") is None
    assert found["quick"].images_per_s is not None
    for name, message in {
        "crash": "SIGSEGV",
        "hang": "within 5 s",
        "broken": "bad driver",
        "absent": "buy one",
        **MEMORY,
    }.items():
        assert message in (errors[name] or "")
        assert found[name].images_per_s is None
        assert found[name].ratio is None
    assert not [
        child for child in psutil.Process().children(recursive=True) if "runtime.process.worker" in " ".join(child.cmdline())
    ]


def test_nothing_that_can_run_is_an_error(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    with pytest.raises(MissingDependencyError, match="no such device") as caught:
        run_bench(plan(tiny_bundle, runtimes=("absent",)))
    assert caught.value.hint == "buy one"
    with pytest.raises(InputError, match="a better graph"):
        run_bench(plan(tiny_bundle, runtimes=("refuses",)))


def test_an_accuracy_that_fails_is_a_warning(tiny_bundle: Bundle, tiny_data: Dataset, fake_runners: list[str]) -> None:
    evaluation = agreeing_evaluation(tiny_bundle, tiny_data)
    (found,) = run_bench(plan(tiny_bundle), replace(evaluation, labels=evaluation.labels[:-1]))
    assert found.images_per_s is not None
    assert found.top1 is None
    assert any("no accuracy: expected one image per label" in warning for warning in found.warnings)


def test_a_batch_size_that_answers_otherwise_is_scored_by_itself(
    tiny_bundle: Bundle, tiny_data: Dataset, fake_runners: list[str]
) -> None:
    """OpenVINO's INT8 with a static shape did: the speed of one model stood beside the accuracy of another."""
    evaluation, asked = agreeing_evaluation(tiny_bundle, tiny_data), []

    def batches(bundle: Bundle) -> Iterable[Images]:
        asked.append(bundle.name)
        return evaluation.batches(bundle)

    steps: list[tuple[int, int, str]] = []
    one, two, five = run_bench(
        plan(tiny_bundle, runtimes=("shaped",), batches=(1, 2, 5)), replace(evaluation, batches=batches),
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert two.top1 == five.top1
    assert one.top1 != two.top1
    assert one.agreement != two.agreement
    assert len(asked) == 2
    assert all(done <= total for done, total, _ in steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundles": ()}, "at least one of bundles"),
        ({"batches": (1, 0)}, "batch of at least 1, got 0"),
        ({"threads": 0}, "threads of at least 1"),
        ({"rounds": 0}, "rounds of at least 1"),
        ({"processes": 0}, "processes of at least 1"),
        ({"seconds": 0.0}, "a duration above 0 s, got 0"),
        ({"seconds": float("nan")}, "a duration above 0 s, got nan"),
        ({"scenario": "multi-stream"}, "expected batch size 8, got 2"),
        ({"rate": 5.0}, "--rate belongs to the server scenario, got single-stream"),
        ({"scenario": "server"}, "expected a rate or a bound, got neither"),
        ({"scenario": "server", "rate": -1.0}, "expected --rate above 0, got -1"),
        ({"cpus": (4096,)}, "expected processors among .*, got 4096"),
        ({"baseline": "other"}, "baseline 'other' is not among the bundles"),
    ],
)
def test_unsound_plans_are_refused(tiny_bundle: Bundle, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(plan(tiny_bundle), **changes).check()  # type: ignore[arg-type]


def test_two_bundles_of_one_name_are_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"2 bundles are called '{tiny_bundle.name}'"):
        plan(tiny_bundle, copy_bundle(tiny_bundle, tmp_path / "copy")).check()


def test_unknown_runtimes_and_scenarios_are_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(InputError, match="unknown runtime 'onnx'"):
        run_bench(plan(tiny_bundle, runtimes=("onnx",)))
    with pytest.raises(InputError, match="unknown scenario 'burst'"):
        scenario_named("burst")


def test_a_repeated_choice_is_one_cell(tiny_bundle: Bundle) -> None:
    assert len(plan(tiny_bundle, batches=(1, 1), runtimes=("ort", "ort")).cases()) == 1


def test_baselines() -> None:
    cells = [
        cell(bundle=bundle, method="none" if bundle == "dense" else bundle, runtime=runtime, batch=batch)
        for batch in (1, 16) for runtime in ("ort", "openvino") for bundle in ("svd", "dense", "pca")
    ]  # fmt: skip
    chosen = {one.key: found.key for one in cells if (found := choose_baseline(one, cells, None))}
    assert chosen["svd/openvino/fp32/b16"] == "dense/openvino/fp32/b16"
    assert chosen["dense/openvino/fp32/b16"] == "dense/ort/fp32/b16"
    assert "dense/ort/fp32/b16" not in chosen
    named = {one.key: found.key for one in cells if (found := choose_baseline(one, cells, "pca"))}
    assert named["dense/ort/fp32/b1"] == "pca/ort/fp32/b1"
    assert "pca/ort/fp32/b1" not in named


def test_without_a_tiny_bundle_the_first_cell_is_the_baseline() -> None:
    cells = [cell(bundle="svd", runtime="ort"), cell(bundle="svd", runtime="openvino")]
    first = choose_baseline(cells[1], cells, None)
    assert first == cells[0]
    assert choose_baseline(cells[0], cells, None) is None
    assert choose_baseline(cells[0], [], None) is None
