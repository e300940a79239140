"""`vitdeploy tune`: search for the deepest cuts within the loss, bench the finalists interleaved, export the fastest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from export.bundle.evaluation import evaluation_of
from export.tune.candidates import Candidate, CandidateFactory, OnStep, labels
from export.tune.choice import Choice, choose
from export.tune.latency_choice import choose_prices_and_threads
from export.tune.loss_test import Classifier, Judge, PairedLoss, judging_splits
from export.tune.request import PICTURED, TuneRequest, TuneSettings
from export.tune.search import Search
from runtime.bench.plan import BenchPlan, Case
from runtime.bench.run import run_bench
from runtime.bundle.schema import Bundle
from runtime.results.schema import Cell, append_cells
from runtime.results.statistics import Interval
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically
from vitnla.data.dataset import Dataset
from vitnla.data.load import load_data
from vitnla.sources.load import load_model

SETTINGS, RESULTS, ANSWER = "tune.json", "results.jsonl", "bundle"
_FINALISTS = 3
"""Shares whose bundles are measured: the deepest within the budget."""
_ROUNDS, _PROCESSES = 12, 4


@dataclass(frozen=True)
class Answer:
    """The result of a tuning: the exported bundle, how it was chosen, and every measured cell."""

    bundle: Bundle
    choice: Choice
    loss: PairedLoss
    """Loss of the answer on the images that it was chosen by."""
    top1: Interval
    """Top-1 of the answer on the test split, on the runtime and at the batch size that were timed."""
    cells: tuple[Cell, ...]
    prices: RuntimePrecision
    """Runtime and precision whose operator times `auto` used."""
    threads: int
    """CPU threads of every runtime; the fastest count for the dense model."""
    tried: dict[float, bool]
    """Share of the dense time -> whether at least one of its bundles was within the budget."""
    taught: dict[float, bool]
    """The same for the distilled shares."""
    seconds: float


class _Entry(NamedTuple):
    """A cell with the candidate and the case that it measures."""

    candidate: Candidate
    case: Case
    cell: Cell


def tune(request: TuneRequest, on_step: OnStep = lambda text: None) -> Answer:
    """Find the fastest bundle within the loss.

    Args:
        request: see `TuneRequest`.
        on_step: called with a line of text before each step, with the time budget that is left.

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

    for lowering in request.lowerings:
        lowering.require()
    say(f"loading model {request.model} and data {request.data}")
    source, data = load_model(request.model), load_data(request.data, request.class_map)
    factory = CandidateFactory(request, source, data, say)
    dense = [Candidate(None, lowering) for lowering in (None, *request.lowerings)]
    bundles = [factory.make(one) for one in dense]
    say("timing the dense bundles")
    prices, threads = choose_prices_and_threads(request, bundles, _places(dense))
    request = replace(request, threads=threads)
    factory.threads = threads
    data = data.for_model(bundles[0].manifest.labels)
    judge = Judge(request, bundles[0], judging_splits(data, request.images, request.taught_images), say)
    search = Search(request, factory, prices, judge, started, say)
    search.run()
    finalists = _finalists(search)
    aside = [one for one in search.made if one not in finalists and one.lowering is None]
    entries = _measure([*dense, *finalists], aside, request, factory, data, say)
    cells = [entry.cell for entry in entries]

    def entry_of(cell: Cell) -> _Entry:
        return next(entry for entry in entries if entry.cell is cell)

    def fits(cell: Cell) -> bool:
        case = entry_of(cell).case
        return judge.fits(case.bundle, case.target, cell.display_name)

    choice = choose(cells, fits)
    marked = [choice.marked(request.question) if cell is choice.cell else cell for cell in cells]
    append_cells(request.folder / RESULTS, marked)
    winner = entry_of(choice.cell)
    loss = judge.loss(winner.case.bundle, winner.case.target)
    bundle = factory.hand_over(winner.candidate, choice.cell.display_name, request.folder / ANSWER)
    say(f"{bundle.name} on {winner.case.target.label}: test accuracy")
    test = data.split("test")
    with Classifier(bundle, winner.case.target, request) as classifier:
        top1 = classifier.top1(test.head(request.test_images))
    seconds = time.monotonic() - started
    return Answer(bundle, choice, loss, top1, tuple(marked), prices, threads, search.tried, search.taught, seconds)


def _measure(
    candidates: Sequence[Candidate], aside: Sequence[Candidate], request: TuneRequest, factory: CandidateFactory, data: Dataset, say: OnStep
) -> list[_Entry]:  # fmt: skip
    """Bench candidates interleaved, each on its own runtimes; `aside` only on the reference runtime, for the report's chart."""
    everything = [*candidates, *aside]
    bundles = [factory.make(one) for one in everything]
    only = _places(candidates) | {one.name: frozenset({request.reference.runtime}) for one in aside}
    plan = BenchPlan(
        tuple(bundles), request.targets, (request.batch,), request.threads, seconds=request.seconds,
        rounds=_ROUNDS, processes=_PROCESSES, only=only, labels=labels(everything),
    )  # fmt: skip
    evaluation = evaluation_of(data, "validation", min(request.images, PICTURED))
    cells = run_bench(plan, evaluation, command=request.command, progress=lambda done, total, text: say(text))

    def candidate_of(case: Case) -> Candidate:
        return next(one for one, bundle in zip(everything, bundles, strict=True) if bundle is case.bundle)

    return [_Entry(candidate_of(case), case, cell) for case, cell in zip(plan.cases(), cells, strict=True)]


def _finalists(search: Search) -> list[Candidate]:
    """Return the deepest shares within the budget and the distilled ones within it, in every precision that was made."""
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
