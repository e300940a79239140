"""What `vitdeploy tune` does: cut as deep as the validation split allows, measure what is left side by side, hand over the best."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from export.tune.candidates import Candidate, OnStep, hand_over, make
from export.tune.choice import Choice, choose
from export.tune.request import Lessons, TuneRequest, TuneSettings
from export.tune.shares import deeper_shares, next_share
from runtime.bench import run_bench
from runtime.bundle import Bundle
from runtime.evaluation import Evaluation
from runtime.plan import BenchPlan
from runtime.results import Cell, append_cells
from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically

SETTINGS, RESULTS, ANSWER = "tune.json", "results.jsonl", "bundle"
_FINALISTS = 3
"""Shares whose bundles are measured: the deepest within the budget."""
_ROUNDS = 12
_RESERVE = 2.0
"""The final comparison and the hand-over take about as long as this many shares."""


@dataclass(frozen=True)
class Answer:
    """The bundle handed over, how it was chosen, and every cell that was measured."""

    bundle: Bundle
    choice: Choice
    dense_top1: float
    cells: tuple[Cell, ...]
    tried: dict[float, bool]
    """Share of the dense time -> whether some bundle of it was within the budget."""
    taught: dict[float, bool]
    """The same of the shares that were distilled."""
    seconds: float


def tune(request: TuneRequest, evaluation: Evaluation, on_step: OnStep = lambda text: None) -> Answer:
    """Find the fastest bundle within the loss.

    Args:
        request: see `TuneRequest`.
        evaluation: of the same validation images that the candidates are scored on.
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

    dense = [make(Candidate(None, lowering), request, say) for lowering in (None, *request.lowerings)]
    tried = _search(request, started, say)
    taught = _search_taught(request, request.lessons, tried, started, say) if request.lessons else {}
    deepest = sorted(share for share, ok in tried.items() if ok)[:_FINALISTS]
    kept = [Candidate(share, None) for share in deepest]
    kept += [Candidate(share, None, request.lessons) for share, ok in taught.items() if ok]
    finalists = [replace(one, lowering=lowering) for one in kept for lowering in (None, *request.lowerings)]
    candidates = [*(Candidate(None, lowering) for lowering in (None, *request.lowerings)), *finalists]
    bundles = (*dense, *(make(one, request, say) for one in finalists))
    plan = BenchPlan(
        bundles, request.targets, (request.batch,), request.threads, seconds=request.seconds, rounds=_ROUNDS,
        only={one.name: one.runtimes for one in candidates if one.runtimes is not None},
    )  # fmt: skip
    cells = run_bench(plan, evaluation, command=request.command, progress=lambda done, total, text: say(text))
    append_cells(request.folder / RESULTS, cells)
    dense_top1 = dense[0].manifest.accuracy.dense_top1
    choice = choose(cells, dense_top1, request.max_drop)
    winner = next(one for one in candidates if one.name == choice.cell.bundle)
    bundle = hand_over(winner, request, request.folder / ANSWER, say)
    return Answer(bundle, choice, dense_top1, tuple(cells), tried, taught, time.monotonic() - started)


def _search(request: TuneRequest, started: float, say: OnStep) -> dict[float, bool]:
    """Shares tried, and whether they are within the budget; stops while there is time left to compare and hand over."""
    tried: dict[float, bool] = {}
    longest = 0.0
    while (share := next_share(tried)) is not None:
        begun = time.monotonic()
        if tried and begun - started + (1 + _RESERVE) * longest > request.time_budget_s:
            say(f"no time for a share of {share:g}")
            break
        tried[share] = _within_budget(Candidate(share, None), request, say)
        longest = max(longest, time.monotonic() - begun)
        say(f"share {share:g}: {'within' if tried[share] else 'beyond'} {request.max_drop:g} points")
    return tried


def _search_taught(
    request: TuneRequest, lessons: Lessons, tried: dict[float, bool], started: float, say: OnStep
) -> dict[float, bool]:
    """Shares deeper than those within the budget, each distilled, until one is still beyond it or the time is up."""
    taught: dict[float, bool] = {}
    longest = 0.0
    for share in deeper_shares(tried):
        begun = time.monotonic()
        if taught and begun - started + longest > request.time_budget_s:
            say(f"no time to distil a share of {share:g}")
            break
        taught[share] = _within_budget(Candidate(share, None, lessons), request, say)
        longest = max(longest, time.monotonic() - begun)
        say(f"share {share:g}, distilled: {'within' if taught[share] else 'beyond'} {request.max_drop:g} points")
        if not taught[share]:
            break
    return taught


def _within_budget(candidate: Candidate, request: TuneRequest, say: OnStep) -> bool:
    """Whether the fp32 bundle and some int8 one of it lose little enough; int8 is not made where fp32 already fails."""

    def loss(one: Candidate) -> float:
        accuracy = make(one, request, say).manifest.accuracy
        return 100 * (accuracy.dense_top1 - accuracy.top1)

    if loss(candidate) > request.max_drop:
        return False
    # Every int8 form is made, since which runtime is the fastest is only known once they are measured.
    return min([loss(replace(candidate, lowering=lowering)) for lowering in request.lowerings]) <= request.max_drop


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
