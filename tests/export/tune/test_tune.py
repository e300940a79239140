"""The search for the fastest bundle: how deep, which cell, and a whole tuning of the tiny model's folder rules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.bundle.plan import ExportOptions
from export.cli.output import seconds
from export.pipeline import ExportRequest, export_model
from export.precision.request import Lowering
from export.tune.candidates import Candidate, CandidateFactory, labels
from export.tune.choice import choose
from export.tune.latency_choice import choose_prices_and_threads, choose_threads, fastest_cell
from export.tune.loss_test import Classifier, Judge, PairedLoss, judging_splits, verdict
from export.tune.next_cut import FIRST, LEAST, MOST, RESOLUTION, STEP, TAUGHT_RESOLUTION, next_share, next_taught
from export.tune.request import Lessons, TuneRequest, default_targets
from export.tune.search import Search
from export.tune.tune import SETTINGS, tune
from runtime.bench.plan import Case, Target
from runtime.bundle.schema import MODEL, Bundle
from runtime.results.schema import Cell
from runtime.runners.availability import Availability
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.allocation.options import budget
from vitnla.common.errors import InputError, VerdictError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.load import load_data
from vitnla.sources.load import load_model


def _searched(limit: float) -> dict[float, bool]:
    tried: dict[float, bool] = {}
    while (share := next_share(tried)) is not None:
        assert share not in tried
        tried[share] = share >= limit
        assert len(tried) < 20
    return tried


@given(st.floats(LEAST, 0.9))
def test_the_search_ends_close_to_the_deepest_good_share(limit: float) -> None:
    good = [share for share, ok in _searched(limit).items() if ok]
    assert min(good) >= limit
    assert min(good) - limit <= max(RESOLUTION, min(good) * 0.2 if min(good) * 0.8 < LEAST else 0)


def test_the_search_gives_up_where_nothing_is_within() -> None:
    tried = _searched(2.0)
    assert max(tried) <= MOST
    assert next(iter(tried)) == FIRST
    assert not any(tried.values())


@given(st.floats(LEAST, 0.5))
def test_what_is_distilled_goes_on_where_untrained_cuts_end(limit: float) -> None:
    tried, taught = {0.6: True, 0.48: True, 0.384: False}, dict[float, bool]()
    while (share := next_taught(tried, taught)) is not None:
        assert share < 0.48
        assert share not in taught
        taught[share] = share >= limit
    assert next(iter(taught)) == pytest.approx(0.48 * STEP**2, abs=1e-3)
    deepest = min([0.48, *(share for share, ok in taught.items() if ok)])
    bad = [share for share, ok in taught.items() if not ok]
    assert deepest - max(bad) <= TAUGHT_RESOLUTION if bad else deepest * STEP < LEAST + 1e-3


def test_where_no_cut_was_good_lessons_begin_from_the_dense_model() -> None:
    assert next_taught({0.6: False, 0.9: False}, {}) == pytest.approx(STEP**2)


class _Judge:
    """Finds every bundle within the budget whose share is at least `limit`."""

    def __init__(self, limit: float) -> None:
        self._limit = limit

    def fits(self, bundle: float, target: object, label: str) -> bool:
        return bundle >= self._limit


@pytest.mark.parametrize(
    ("least", "limit", "tried"),
    [
        (0.802, 0.0, {0.802: True}),
        (0.802, 0.85, {0.802: False, 0.873: True, 0.838: False, 0.855: True}),
        (0.55, 0.0, {0.6: True, 0.55: True}),
        (0.97, 0.0, {}),
    ],
)
def test_a_share_that_the_model_does_not_allow_is_clipped(
    least: float, limit: float, tried: dict[float, bool], tmp_path: Path
) -> None:
    class Factory:
        def make(self, candidate: Candidate) -> float:
            assert candidate.share is not None
            budget(1000, round(1000 * least), candidate.share)
            return candidate.share

    request = TuneRequest("demo", "demo", 1.0, 0.8, (Target("ort"),), 1, 1, 10, None, None, 1e9, 1.0, tmp_path, "test")
    said: list[str] = []
    search = Search(request, Factory(), RuntimePrecision("ort"), _Judge(limit), 0.0, said.append)  # type: ignore[arg-type]
    search.run()
    assert search.tried == tried
    assert {one.share for one in search.made} == set(tried)
    assert any(f"cannot be had: this model allows {least:g} and more" in line for line in said)


def _cell(name: str, method: str, precision: str, speed: float, top1: float | None, *, error: str | None = None) -> Cell:
    noise = (0.99, 1.01, 1.0, 0.995, 1.005)
    return Cell(
        run="r", created="now", command="", bundle=name, bundle_path=name, method=method, runtime="ort", precision=precision, batch=1,
        scenario="single-stream", images_per_s=speed, rounds_images_per_s=tuple(speed * one for one in noise), top1=top1, error=error,
    )  # fmt: skip


def _all(cell: Cell) -> bool:
    return True


class TestChoice:
    dense = _cell("dense", "none", "fp32", 100, 0.90)
    int8 = _cell("dense-int8", "none", "int8", 200, 0.899)

    def test_the_fastest_within_the_budget_wins(self) -> None:
        deep, good = _cell("deep", "auto", "int8", 500, 0.85), _cell("good", "auto", "int8", 300, 0.893)
        choice = choose([self.dense, self.int8, deep, good], lambda cell: cell is not deep)
        assert (choice.cell, choice.dense, choice.fp32, choice.decomposed) == (good, self.int8, self.dense, True)
        assert choice.gain is not None
        assert choice.gain.value == pytest.approx(1.5)
        assert choice.speedup is not None
        assert choice.speedup.value == pytest.approx(3.0)
        answer = choice.marked("the fastest").answer
        assert answer is not None
        assert [(one.baseline, round(one.value, 3)) for one in answer.gains] == [(self.dense.key, 3.0), (self.int8.key, 1.5)]

    def test_dense_int8_wins_where_nothing_beats_it(self) -> None:
        choice = choose([self.dense, self.int8, _cell("slow", "auto", "fp32", 150, 0.90)], _all)
        assert (choice.cell, choice.decomposed, choice.gain) == (self.int8, False, None)
        answer = choice.marked("the fastest").answer
        assert answer is not None
        assert [one.baseline for one in answer.gains] == [self.dense.key]

    def test_a_gain_that_chance_explains_is_none(self) -> None:
        close = _cell("close", "auto", "int8", 200.2, 0.90).model_copy(
            update={"rounds_images_per_s": (190.0, 212.0, 199.0, 201.0, 199.5)}
        )
        assert choose([self.dense, self.int8, close], _all).cell == self.int8

    def test_an_int8_beyond_the_budget_leaves_fp32(self) -> None:
        choice = choose([self.dense, self.int8], lambda cell: False)
        assert choice.cell == self.dense
        assert choice.speedup is None

    def test_a_failed_cell_is_never_chosen(self) -> None:
        assert choose([self.dense, self.int8, _cell("x", "auto", "int8", 900, 0.9, error="crashed")], _all).cell == self.int8

    def test_slower_cells_are_not_asked_about(self) -> None:
        asked = []
        choose(
            [self.dense, self.int8, _cell("fast", "auto", "int8", 900, 0.9)], lambda cell: bool(asked.append(cell.bundle)) or True
        )
        assert asked == ["fast", "dense-int8"]

    def test_without_the_dense_model_there_is_no_choice(self) -> None:
        with pytest.raises(ValueError, match="dense fp32"):
            choose([self.int8], _all)


class TestVerdict:
    def test_a_clear_loss_is_known_early_and_a_close_one_at_the_end(self) -> None:
        clear, close = PairedLoss(images=500, lost=60, gained=10), PairedLoss(images=500, lost=15, gained=10)
        assert verdict(clear, 1.0, 0.8, final=False) is False
        assert verdict(PairedLoss(images=5000, lost=20, gained=20), 1.0, 0.8, final=False) is True
        assert verdict(close, 1.0, 0.5, final=False) is None
        assert verdict(close, 1.0, 0.5, final=True) is True  # 1.0 point, as measured
        assert verdict(close, 1.0, 0.8, final=True) is False
        assert verdict(PairedLoss(images=9), 0.0, 0.8, final=True) is True  # the same answers
        assert verdict(PairedLoss(images=1000, lost=20, gained=20), 1.2, 0.5, final=False) is None
        assert verdict(PairedLoss(images=1000, lost=20, gained=20), 1.7, 0.999, final=True) is False
        assert verdict(PairedLoss(), 1.0, 0.5, final=False) is None
        assert verdict(PairedLoss(), 1.0, 0.5, final=True) is False

    def test_a_lucky_split_does_not_pass_for_long(self) -> None:
        """A model that loses 2.4 points lost 0.1 of our 2,000 validation images, and was chosen."""
        unlucky = PairedLoss(images=2000, lost=83, gained=81)
        assert verdict(unlucky, 1.0, 0.8, final=False) is None
        assert verdict(unlucky + PairedLoss(images=8000, lost=470, gained=280), 1.0, 0.8, final=False) is False

    @given(st.integers(0, 200), st.integers(0, 200), st.floats(0.5, 0.99))
    def test_the_interval_holds_the_loss_and_confidence_only_refuses(self, lost: int, gained: int, confidence: float) -> None:
        loss = (
            PairedLoss(images=400, lost=lost, gained=gained)
            if lost + gained <= 400
            else PairedLoss(images=800, lost=lost, gained=gained)
        )
        value, low, high = loss.points()
        assert low < value < high
        assert value == pytest.approx(100 * (lost - gained) / loss.images)
        if verdict(loss, 1.0, confidence, final=True):
            assert verdict(loss, 1.0, 0.5, final=True)
            assert value <= 1.0


class TestJudge:
    data = Dataset(
        "made", ("a", "b"),
        {
            name: Split(np.full((count, 4, 4, 1), mark, np.uint8), np.zeros(count, np.int64))
            for name, count, mark in (("train", 100, 1), ("calibration", 20, 2), ("validation", 10, 3), ("test", 5, 4))
        },
    )  # fmt: skip

    @pytest.mark.parametrize(
        ("count", "taught", "sizes"), [(8, 0, [8]), (10, 0, [10]), (25, 0, [10, 15]), (900, 30, [10, 50]), (900, None, [10])]
    )
    def test_images_that_neither_calibrate_nor_teach(self, count: int, taught: int | None, sizes: list[int]) -> None:
        assert [len(one) for one in judging_splits(self.data, count, taught)] == sizes

    def test_fewer_are_the_first_of_more(self) -> None:
        train = Split(np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1), np.arange(100))
        data = Dataset("made", self.data.labels, {**self.data.splits, "train": train})
        few, many = (judging_splits(data, count, 0)[1].labels for count in (15, 40))
        assert many[0] == 79  # the last 20 calibrate
        assert np.array_equal(few, many[: len(few)])

    def test_what_was_counted_is_kept_and_gone_on_with(self, tiny_bundle: Bundle, tiny_data: Dataset, tmp_path: Path) -> None:
        split = tiny_data.split("test")
        request, said = _request(tmp_path, max_drop=5.0, batch=3), list[str]()
        other = Bundle(tiny_bundle.folder, tiny_bundle.manifest.model_copy(update={"name": "other"}))
        few = Judge(request, tiny_bundle, (split.head(7),), said.append)
        assert few.fits(tiny_bundle, Target("ort"))  # by definition, and without a look
        assert not (tmp_path / "judged.json").exists()
        assert few.fits(other, Target("ort"))
        assert few.loss(other, Target("ort")) == PairedLoss(images=7, lost=0, gained=0)  # the same graph
        more = Judge(request, tiny_bundle, (split.head(7), split.take(slice(7, 12))), said.append)
        assert more.loss(other, Target("ort")).images == 7
        assert more.fits(other, Target("ort"))
        assert more.loss(other, Target("ort")) == PairedLoss(images=12, lost=0, gained=0)
        assert said[-1] == f"other on ort: {more.loss(other, Target('ort')).describe()}"
        changed = {**tiny_bundle.manifest.files, MODEL: "0" * 64}
        remade = Bundle(tiny_bundle.folder, other.manifest.model_copy(update={"files": changed}))
        assert more.loss(remade, Target("ort")).images == 0

    def test_top1_of_a_split(self, tiny_bundle: Bundle, tiny_data: Dataset, tmp_path: Path) -> None:
        split = tiny_data.split("test")
        with Classifier(tiny_bundle, Target("ort"), _request(tmp_path, batch=3)) as classifier:
            right = classifier.right(split)
            assert classifier.top1(split).value == pytest.approx(right.mean())
            wrong = Split(split.images, np.where(right, split.labels + 1, split.labels))
            assert classifier.top1(wrong).value == 0


def _request(folder: Path, **changes: object) -> TuneRequest:
    given_: dict[str, object] = {
        "model": "demo", "data": "demo", "max_drop": 1.0, "confidence": 0.8, "targets": (Target("ort"),), "batch": 4, "threads": 1, "images": 50,
        "test_images": 50, "calibration_images": 32, "time_budget_s": 60.0, "seconds": 0.3, "folder": folder, "command": "tune",
    }  # fmt: skip
    return TuneRequest(**(given_ | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_drop": -1.0}, "--max-drop between 0 and 100"),
        ({"confidence": 0.4}, "--confidence of at least 0.5"),
        ({"time_budget_s": 0.0}, "time budget above 0"),
        ({"targets": (Target("trt"),)}, "does not know runtime 'trt'"),
        ({"targets": (Target("ort", "cuda"),)}, "does not know runtime 'ort:cuda'"),
        ({"targets": (Target("openvino", precision="bf16"),)}, "in fp32 to hold the others against, got openvino:bf16"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        tune(_request(tmp_path, **changes))
    assert not (tmp_path / SETTINGS).exists()


def test_another_question_needs_another_folder(tmp_path: Path) -> None:
    (tmp_path / SETTINGS).write_text(_request(tmp_path, batch=2).settings.to_json())
    with pytest.raises(InputError, match="other settings"):
        tune(_request(tmp_path))


ORT, OPENVINO = (Lowering(RuntimePrecision(name, "int8")) for name in ("ort", "openvino"))
SYMMETRIC = Lowering(RuntimePrecision("openvino", "int8"), "symmetric")


def test_names_of_candidates() -> None:
    assert Candidate(None).name == "dense-fp32"
    assert Candidate(0.48, OPENVINO).name == "auto-0.48-int8-openvino"
    assert Candidate(0.48, OPENVINO).runtimes == {"openvino"}
    assert Candidate(0.48).runtimes is None
    assert (Candidate(0.48, SYMMETRIC).name, Candidate(0.48, SYMMETRIC).runtimes) == (
        "auto-0.48-int8-openvino-symmetric",
        {"openvino"},
    )
    taught = Candidate(0.4, ORT, Lessons(2, 90), RuntimePrecision("ort", "int8"))
    assert taught.name == "auto-0.4-by-ort-int8-distilled-2x90-int8-ort"
    assert taught.label == "auto 0.4 · int8 · distilled"
    assert (Candidate(None).label, Candidate(0.6, OPENVINO).label) == ("dense · fp32", "auto 0.6 · int8")


def test_labels_say_no_more_than_tells_candidates_apart() -> None:
    int8 = [Candidate(None, one) for one in (ORT, SYMMETRIC, OPENVINO)]
    candidates = [Candidate(None), *int8, Candidate(0.6, ORT), Candidate(0.6, SYMMETRIC), Candidate(0.48, SYMMETRIC)]
    assert list(labels(candidates).items()) == [
        ("dense-fp32", "dense · fp32"), ("dense-int8-ort", "dense · int8 · ort"),
        ("dense-int8-openvino-symmetric", "dense · int8 · openvino · symmetric"),
        ("dense-int8-openvino", "dense · int8 · openvino · asymmetric"),
        ("auto-0.6-int8-ort", "auto 0.6 · int8 · ort"), ("auto-0.6-int8-openvino-symmetric", "auto 0.6 · int8 · openvino"),
        ("auto-0.48-int8-openvino-symmetric", "auto 0.48 · int8"),
    ]  # fmt: skip


def test_every_runtime_is_tuned_for_in_the_forms_that_its_quantiser_has(tmp_path: Path) -> None:
    both = _request(tmp_path, targets=(Target("ort"), Target("openvino"), Target("openvino", precision="bf16")))
    assert both.lowerings == (ORT, SYMMETRIC, OPENVINO)
    assert both.lowering_targets == {"ort": Target("ort"), "openvino": Target("openvino")}


@pytest.mark.parametrize(
    ("flags", "found"), [(["avx2"], ["ort", "openvino"]), (["avx512_bf16"], ["ort", "openvino", "openvino:bf16"])]
)
def test_by_default_everything_that_runs_here_is_tuned_for(
    flags: list[str], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.tune.request.machine_facts", lambda: {"cpu_flags": flags})
    monkeypatch.setattr("runtime.runners.openvino_cpu.OpenVinoRunner.availability", lambda self: Availability(True))
    assert [target.label for target in default_targets()] == found
    monkeypatch.setattr("runtime.runners.openvino_cpu.OpenVinoRunner.availability", lambda self: Availability(False, "absent"))
    assert [target.label for target in default_targets()] == ["ort"]


@pytest.mark.parametrize(
    ("target", "precision", "expected"),
    [
        (Target("ort"), "fp32", "ort"), (Target("openvino", precision="bf16"), "fp32", "openvino:bf16"),
        (Target("openvino", precision="bf16"), "int8", "openvino:int8"),
    ],
)  # fmt: skip
def test_prices_are_those_of_where_the_dense_model_is_the_fastest(
    target: Target, precision: str, expected: str, tiny_bundle: Bundle
) -> None:
    cells = [
        _cell("slow", "none", "int8", 100, None), _cell("broken", "none", "int8", 900, None, error="crashed"),
        _cell("fast", "none", precision, 300, None),
    ]  # fmt: skip
    assert fastest_cell(cells) is cells[2]
    dense = Bundle(tiny_bundle.folder, tiny_bundle.manifest.model_copy(update={"precision": precision}))
    assert Case(dense, target, 1).runs_as.label == expected
    with pytest.raises(VerdictError, match="no dense bundle could be timed: crashed"):
        fastest_cell(cells[1:2])


def test_prices_stay_those_that_a_tuning_began_with(tmp_path: Path) -> None:
    asked = _request(tmp_path, prices=RuntimePrecision("openvino", "bf16"))
    assert choose_prices_and_threads(asked, (), {}) == (RuntimePrecision("openvino", "bf16"), 1)
    (tmp_path / "prices.json").write_text('{"target": "ort:int8", "threads": 3}')
    assert choose_prices_and_threads(_request(tmp_path), (), {}) == (RuntimePrecision("ort", "int8"), 3)
    assert choose_prices_and_threads(asked, (), {}).prices.label == "openvino:bf16"
    (tmp_path / "prices.json").write_text('{"target": "ort:int8"}')
    assert choose_prices_and_threads(_request(tmp_path), (), {}).threads == 1


@pytest.mark.parametrize(("speed", "expected"), [(110, 1), (100.5, 2), (90, 2)])
def test_fewer_threads_are_taken_where_they_are_faster_beyond_chance(speed: float, expected: int) -> None:
    names = {"openvino:bf16@2": 100.0, "openvino:bf16@1": speed}
    cells = [_cell("d", "none", "int8", rate, None).model_copy(update={"runtime": name}) for name, rate in names.items()]
    assert choose_threads((2, 1), cells) == expected
    broken = [cells[0], cells[1].model_copy(update={"error": "crashed"})]
    assert choose_threads((2, 1), broken) == 2


def test_threads_are_chosen_by_measurement(tiny_bundle: Bundle, tmp_path: Path) -> None:
    found = choose_prices_and_threads(_request(tmp_path, threads=2, fewer_threads=(1,)), (tiny_bundle,), {})
    assert found.prices.label == "ort"
    assert found.threads in {1, 2}
    assert choose_prices_and_threads(_request(tmp_path, threads=2, fewer_threads=(1,)), (), {}) == found


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("20m", 1200), ("1h", 3600), ("7.5", 7.5)])
def test_durations(text: str, expected: float) -> None:
    assert seconds(text, "--time-budget") == expected


def test_a_duration_that_is_none() -> None:
    with pytest.raises(InputError, match="expected a duration, got 'soon'"):
        seconds("soon", "--time-budget")


@pytest.mark.slow
def test_a_distilled_candidate_is_taught_once_and_leaves_the_test_split_alone(tmp_path: Path) -> None:
    request = _request(tmp_path, lessons=Lessons(1, 64))
    untrained = Candidate(0.5)
    export_model(
        ExportRequest(
            "demo", "demo", "svd", {"target_macs": 0.5}, tmp_path / "candidates" / untrained.name,
            ExportOptions(name=untrained.name, eval_split="validation", eval_images=50), "tune", 32,
        ),
        lambda text: None,
    )  # fmt: skip
    steps: list[str] = []
    factory = CandidateFactory(request, load_model("demo"), load_data("demo"), steps.append)
    taught = factory.make(Candidate(0.5, lessons=request.lessons))
    assert taught.name == "auto-0.5-distilled-1x64-fp32"
    assert taught.manifest.accuracy.split == "validation"
    assert taught.manifest.distillation is not None
    assert (taught.manifest.distillation.epochs, taught.manifest.distillation.images) == (1, 64)
    assert taught.manifest.method == "svd"  # what it was decomposed by, not how it was trained
    assert any("distilling, batch" in text for text in steps)
    assert not any("test accuracy" in text for text in steps)

    steps.clear()
    assert factory.make(Candidate(0.5, lessons=request.lessons)) is taught
    int8 = factory.make(Candidate(0.5, ORT, request.lessons))
    assert int8.manifest.precision == "int8"
    assert not any("distilling" in text for text in steps)
