"""What `vitdeploy tune` does: cut as deep as the validation split allows, measure what is left side by side, hand over the best."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from export.latency.target import LatencyTarget
from export.tune.candidates import Candidate, OnStep, hand_over, make
from export.tune.choice import Choice, choose
from export.tune.latency_choice import settle
from export.tune.loss_test import Classifier, Judge, Loss, judging_splits
from export.tune.request import TuneRequest, TuneSettings
from export.tune.search import Search
from runtime.bench.plan import BenchPlan, Target
from runtime.bench.run import run_bench
from runtime.bundle.schema import Bundle
from runtime.check.accuracy import Evaluation
from runtime.results.schema import Cell, append_cells
from runtime.results.statistics import Interval
from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically
from vitnla.data.load import load_data

SETTINGS, RESULTS, ANSWER = "tune.json", "results.jsonl", "bundle"
_FINALISTS = 3
"""Shares whose bundles are measured: the deepest within the budget."""
_ROUNDS, _PROCESSES = 12, 4


@dataclass(frozen=True)
class Answer:
    """The bundle handed over, how it was chosen, and every cell that was measured."""

    bundle: Bundle
    choice: Choice
    loss: Loss
    """Of the answer, on the images that it was chosen by."""
    top1: Interval
    """Of the answer on the test split, where and as it was timed."""
    cells: tuple[Cell, ...]
    prices: LatencyTarget
    """What time was counted by."""
    threads: int
    """Of every runtime, as was the fastest for the dense model."""
    tried: dict[float, bool]
    """Share of the dense time -> whether some bundle of it was within the budget."""
    taught: dict[float, bool]
    """The same of the shares that were distilled."""
    seconds: float


def tune(request: TuneRequest, evaluation: Evaluation, on_step: OnStep = lambda text: None) -> Answer:
    """Find the fastest bundle within the loss.

    Args:
        request: see `TuneRequest`.
        evaluation: some validation images, for the picture: every cell is scored on them.
        on_step: told what is being done, with what is left of the time budget.

    Raises:
        InputError: the request is not sound, or its folder holds a tuning with other settings.
        MissingDependencyError: a runtime or its quantiser is absent.
    """
    request.check()
    _claim(request)
    started = time.monotonic()

    def say(text: str) -> None:
        left = request.time_budget_s - (time.monotonic() - started)
        on_step(f"{text} ({max(left, 0) / 60:.0f} min of the budget left)")

    dense = [Candidate(None, lowering) for lowering in (None, *request.lowerings)]
    bundles = [make(one, request, say) for one in dense]
    say("timing the dense bundles")
    prices, threads = settle(request, bundles, _places(dense))
    request = replace(request, threads=threads)
    data = load_data(request.data, request.class_map).for_model(bundles[0].manifest.labels)
    judge = Judge(request, bundles[0], judging_splits(data, request.images, request.taught_images), say)
    search = Search(request, prices, judge, started, say)
    search.run()
    finalists = _finalists(search)
    aside = [one for one in search.made if one not in finalists and one.lowering is None]
    candidates = [*dense, *finalists, *aside]
    # They are there for the picture, so on one runtime only.
    elsewhere = {one.name: frozenset({request.reference.runtime}) for one in aside}
    plan = BenchPlan(
        tuple(make(one, request, say) for one in candidates), request.targets, (request.batch,), request.threads,
        seconds=request.seconds, rounds=_ROUNDS, processes=_PROCESSES, only=_places(candidates) | elsewhere,
    )  # fmt: skip
    cells = run_bench(plan, evaluation, command=request.command, progress=lambda done, total, text: say(text))
    made = {bundle.name: bundle for bundle in plan.bundles}

    choice = choose(cells, lambda cell: judge.fits(made[cell.bundle], Target.parse(cell.runtime)))
    marked = [choice.marked(request.question) if cell is choice.cell else cell for cell in cells]
    append_cells(request.folder / RESULTS, marked)
    winner = next(one for one in candidates if one.name == choice.cell.bundle)
    target = Target.parse(choice.cell.runtime)
    loss = judge.loss(made[winner.name], target)
    bundle = hand_over(winner, request, request.folder / ANSWER, say)
    say(f"{bundle.name} on {target.label}: test accuracy")
    test = data.split("test")
    with Classifier(bundle, target, request) as classifier:
        top1 = classifier.top1(test.head(request.test_images))
    seconds = time.monotonic() - started
    return Answer(bundle, choice, loss, top1, tuple(marked), prices, threads, search.tried, search.taught, seconds)


def _finalists(search: Search) -> list[Candidate]:
    """The deepest shares within the budget, and the distilled ones that are, in every precision that was made of them."""
    untrained = sorted(share for share, ok in search.tried.items() if ok)[:_FINALISTS]
    kept = {(share, None) for share in untrained} | {(share, search.request.lessons) for share, ok in search.taught.items() if ok}
    return [one for one in search.made if (one.share, one.lessons) in kept]


def _places(candidates: Sequence[Candidate]) -> dict[str, frozenset[str]]:
    return {one.name: one.runtimes for one in candidates if one.runtimes is not None}


def _claim(request: TuneRequest) -> None:
    path = request.folder / SETTINGS
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
        found = TuneSettings.read(path) if path.is_file() else None
    except OSError as error:
        raise InputError(f"cannot write {request.folder}: {error.strerror}", "choose another folder with -o") from error
    if found is not None and found != request.settings:
        raise InputError(f"{request.folder} holds a tuning with other settings", "choose another folder with -o, or remove it")
    write_atomically(path, request.settings.to_json())
