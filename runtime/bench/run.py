"""Run the bench: one process per cell, all loaded, then measured in interleaved rounds, so that disturbances hit all cells alike.

Every few rounds each cell gets a fresh process: speed differs between processes of one program, by some percent, for their lifetime.
"""

from __future__ import annotations

import contextlib
import math
import random
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime

from runtime.bench.cells import Measured, RunInfo, make_cells
from runtime.bench.journal import Failure, Journal, SearchResult, Step
from runtime.bench.plan import BenchPlan, Case, Target
from runtime.bench.search import find_batch, find_rate
from runtime.check.accuracy import Evaluation, Score, evaluate
from runtime.check.logits import relative_error
from runtime.machine.facts import machine_facts
from runtime.process.client import Worker
from runtime.results.schema import Cell
from runtime.runners.base import Logits
from vitnla.common.errors import InputError, MissingDependencyError, VitDeployError

_SAME_ANSWERS = 0.05
"""Largest relative error between the answers of two batch sizes that share a score. Rounding in INT8 makes 0.02."""
ProgressCallback = Callable[[int, int, str], None]
"""Called with steps done, steps in total, and a text on the present cell."""


def run_bench(
    plan: BenchPlan,
    evaluation: Evaluation | None = None,
    *,
    command: str = "",
    progress: ProgressCallback = lambda done, total, text: None,
    journal: Journal | None = None,
) -> list[Cell]:
    """Measure every cell of the plan: speed in interleaved rounds, accuracy, then memory in processes of their own.

    Idle workers are blocked on a pipe, and their threads do not spin, so they take nothing from the one that runs.

    Args:
        plan: what to measure.
        evaluation: the split to score on; without it cells have no accuracy.
        command: the command line, to be recorded.
        progress: called after every step.
        journal: receives every complete step; steps that it holds already are not measured again. The caller removes it.

    Returns:
        A cell for each case, in the plan's order; one that could not be measured carries `error`.

    Raises:
        InputError: the plan is not valid or names an unknown runtime, or no cell can be loaded.
        MissingDependencyError: no cell can run here, since a runtime, a device or an engine is missing.
    """
    plan.check()
    bench = Bench(plan, plan.cases(), progress, journal)
    bench.measure(evaluation)
    bench.measure_memory()
    progress(bench.total, bench.total, "done")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    info = RunInfo(uuid.uuid4().hex[:12], created, command, plan, machine_facts())
    return make_cells(bench.cells, info)


class Bench:
    """The state of a run: the measurements so far, and the live workers.

    Args:
        plan: how to measure.
        cases: cells to measure; a case may occur twice, as in the self-test.
        progress: called after every step.
        journal: see `run_bench`.
    """

    def __init__(
        self,
        plan: BenchPlan,
        cases: Sequence[Case],
        progress: ProgressCallback = lambda done, total, text: None,
        journal: Journal | None = None,
    ) -> None:
        self._plan = plan
        self._progress = progress
        self._journal = journal
        self.cells = [Measured(case) for case in cases]
        self._workers: dict[int, Worker] = {}
        self._done = 0
        self._process = 0
        for step in journal.steps if journal else ():
            self._restore(step)
        self._rounds_kept = journal.rounds if journal else 0
        for cell in self.cells:
            # What failed is tried again, and takes part in as many rounds as the others did.
            cell.first_round = self._rounds_kept - len(cell.slices)
        missing = max(map(self._missing, self.cells))
        # Accuracy and memory are two more steps, and an interruption may have cut the rounds of a process in two.
        self.total = len(self.cells) * (missing + math.ceil(missing / plan.rounds_per_process) + 3)

    def measure(self, evaluation: Evaluation | None = None) -> None:
        """Measure all rounds, in as many processes per cell as the plan says; the last of them also score the split, if given.

        All cells run until the last of them has had its rounds: one that was tried again after an interruption is compared with
        others in the same rounds only.
        """
        number = self._rounds_kept
        while True:
            with contextlib.ExitStack() as stack:
                self.load(stack, number)
                end = number + self._plan.rounds_per_process - number % self._plan.rounds_per_process
                while number < end and (missing := self._rounds_missing()):
                    self.run_round(number, self._live(), last=number + missing)
                    self._keep(Step(slices={index: cell.slices[-1] for index, cell in self._live()}, failures=self._failures()))
                    number += 1
                if not self._rounds_missing():
                    if evaluation is not None:
                        self.score(evaluation)
                    return

    def load(self, stack: contextlib.ExitStack, number: int = 0) -> None:
        """Start a worker per cell that can run, load it and warm it up; `number` is the round that follows."""
        self._process = number
        unavailable = {target: target.unavailable() for target in {cell.case.target for cell in self.cells}}
        for cell in self.cells:
            cell.error = cell.error or unavailable[cell.case.target]
        self._stop_if_nothing_can_run()
        for index, cell in self._live():
            with self._step(cell, "loading"):
                if self._plan.searches_batch and cell.search is None:
                    self._search_batch(index, cell)
                worker = stack.enter_context(Worker(self._plan.timeout_s, self._plan.cpus))
                cell.cpus = worker.bind()
                cell.loads.append(worker.load(cell.case.target.runtime, cell.case.bundle, self._plan.options(cell.case)))
                cell.stable &= worker.warm_up()
                if self._plan.scenario == "server" and self._plan.rate is None and cell.search is None:
                    self._search_rate(index, cell, worker)
                self._workers[index] = worker
        self._stop_if_nothing_can_run()

    def run_round(self, number: int, cells: Collection[tuple[int, Measured]], last: int) -> None:
        """Measure one slice of each of these cells: shuffled anew in every second round, in reverse order in the next.

        No cell always runs after the same neighbour, and every cell comes early as often as late.

        Args:
            number: number of the round, from 0.
            cells: cells with their indices among all; their workers are loaded.
            last: rounds in total, for the progress.
        """
        plan, order = self._plan, list(cells)
        seconds, count = plan.seconds / plan.rounds, math.ceil(plan.calls / plan.rounds)
        random.Random(number // 2).shuffle(order)
        for index, cell in order[::-1] if number % 2 else order:
            rate = cell.search.rate if cell.search else plan.rate
            with self._step(cell, f"round {number + 1} of {last}"):
                # The same arrivals for every cell of a round: they are compared by it.
                part = self._workers[index].measure(plan.scenario, seconds, count, rate, number)
                cell.slices.append(part.model_copy(update={"process": self._process}))

    def score(self, evaluation: Evaluation) -> None:
        """Score the split, from the largest batch down; a batch size that answers like one that was scored shares its score.

        A runtime compiles a model per batch size, and the model that is timed must be the one that is scored.
        """
        scored: dict[tuple[str, Target], list[tuple[Logits, Score]]] = {}
        unscored = [(index, cell) for index, cell in self._live() if cell.score is None]
        for index, cell in sorted(unscored, key=lambda entry: -entry[1].case.batch):
            with self._step(cell, "accuracy", vital=False):
                bundle, worker = cell.case.bundle, self._workers[index]
                known = scored.setdefault((bundle.name, cell.case.target), [])
                answers = worker.infer(bundle.reference()[0])
                alike = (score for logits, score in known if relative_error(answers, logits) <= _SAME_ANSWERS)
                if (result := next(alike, None)) is None:
                    result = evaluate(worker.infer, bundle, evaluation)
                    known.append((answers, result))
                cell.score = result
                self._keep(Step(scores={index: result}))

    def measure_memory(self) -> None:
        """Measure the memory of a fresh process per cell, after all others have ended."""
        for _, cell in self._live():
            with self._step(cell, "memory", vital=False), Worker(self._plan.timeout_s, self._plan.cpus) as worker:
                worker.bind()
                case = cell.case
                cell.peak_mb, cell.device_mb = worker.memory_mb(case.target.runtime, case.bundle, self._plan.options(case))

    def _search_batch(self, index: int, cell: Measured) -> None:
        tried = find_batch(self._plan, cell.case)
        best = max(tried, key=lambda entry: entry.images_per_s)
        self._apply_search(index, cell, SearchResult(batch=best.batch, batch_search=tried))

    def _search_rate(self, index: int, cell: Measured, worker: Worker) -> None:
        self._apply_search(index, cell, SearchResult(batch=cell.case.batch, rate=find_rate(self._plan, worker)))

    def _apply_search(self, index: int, cell: Measured, search: SearchResult) -> None:
        cell.apply_search(search)
        self._keep(Step(found={index: search}))

    def _live(self) -> list[tuple[int, Measured]]:
        return [(index, cell) for index, cell in enumerate(self.cells) if cell.error is None]

    def _failures(self) -> dict[int, Failure]:
        return {index: Failure.of(cell.error) for index, cell in enumerate(self.cells) if cell.error is not None}

    def _missing(self, cell: Measured) -> int:
        """Return the rounds that a cell still lacks."""
        return max(0, self._plan.rounds - len(cell.slices))

    def _rounds_missing(self) -> int:
        return max((self._missing(cell) for _, cell in self._live()), default=0)

    def _keep(self, step: Step) -> None:
        if self._journal is not None:
            self._journal.add(step)

    def _restore(self, step: Step) -> None:
        for index, search in step.found.items():
            self.cells[index].apply_search(search)
        for index, part in step.slices.items():
            self.cells[index].slices.append(part)
            self.cells[index].rounds_before = len(self.cells[index].slices)
        for index, score in step.scores.items():
            self.cells[index].score = score
        for index in step.failures:
            self.cells[index].slices.clear()
            self.cells[index].rounds_before = 0

    @contextlib.contextmanager
    def _step(self, cell: Measured, text: str, *, vital: bool = True) -> Iterator[None]:
        """Confine a failure to this cell: a vital one ends its measurement, another becomes a warning."""
        case = cell.case
        name = self._plan.labels.get(case.bundle.name, case.bundle.name)
        self._progress(self._done, self.total, f"{name} on {case.target.label}, batch {case.batch}: {text}")
        try:
            yield
        except VitDeployError as error:
            if vital:
                cell.error = error
            else:
                cell.notes.append(f"no {text}: {error.message}")
        self._done += 1

    def _stop_if_nothing_can_run(self) -> None:
        errors = [cell.error for cell in self.cells]
        first = errors[0]
        if first is not None and all(isinstance(error, (MissingDependencyError, InputError)) for error in errors):
            raise first
