"""The bench: a process per cell, all loaded, then measured in turns, so that whatever the machine does hits every cell alike.

Every so many rounds all get fresh processes: what one of them draws for life is then not taken for a property of its cell.
"""

from __future__ import annotations

import contextlib
import math
import random
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime

from runtime.bench.cells import Measured, Origin, make_cells
from runtime.bench.journal import Failure, Found, Journal, Step
from runtime.bench.plan import BenchPlan, Case, Target
from runtime.bench.search import find_batch, find_rate
from runtime.check.accuracy import Evaluation, Score, evaluate
from runtime.check.logits import relative_error
from runtime.machine.facts import machine_facts
from runtime.process.client import Worker
from runtime.results.schema import Cell
from runtime.runners.base import Logits
from vitnla.common.errors import InputError, MissingDependencyError, VitDeployError

_ALIKE = 0.05
"""Relative error up to which the answers at two batch sizes are taken for the same. Rounding in INT8 makes 0.02 of it."""
Progress = Callable[[int, int, str], None]
"""Steps done, steps in all, and what is being done."""


def run_bench(
    plan: BenchPlan,
    evaluation: Evaluation | None = None,
    *,
    command: str = "",
    progress: Progress = lambda done, total, text: None,
    journal: Journal | None = None,
) -> list[Cell]:
    """Measure every cell of the plan: speed in interleaved rounds, accuracy, then memory in processes of their own.

    Idle workers are blocked on a pipe, and their threads do not spin, so they take nothing from the one that runs.

    Args:
        plan: what to measure.
        evaluation: the split to score on; without it cells have no accuracy.
        command: the command line, to be recorded.
        progress: called after every step.
        journal: keeps what is complete; what it holds already is not measured again. The caller removes it.

    Returns:
        A cell for each case, in the plan's order; one that could not be measured carries `error`.

    Raises:
        InputError: the plan is not sound or names an unknown runtime, or not one cell can be loaded.
        MissingDependencyError: not one cell can run here, for want of a runtime, a device or an engine.
    """
    plan.check()
    bench = Bench(plan, plan.cases(), progress, journal)
    bench.measure(evaluation)
    bench.weigh()
    progress(bench.total, bench.total, "done")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    origin = Origin(uuid.uuid4().hex[:12], created, command, plan, machine_facts())
    return make_cells(bench.cells, origin)


class Bench:
    """The state of a run: what was measured so far, and the live workers.

    Args:
        plan: how to measure.
        cases: what to measure; a case may stand there twice, as in the self-test.
        progress: called after every step.
        journal: see `run_bench`.
    """

    def __init__(
        self,
        plan: BenchPlan,
        cases: Sequence[Case],
        progress: Progress = lambda done, total, text: None,
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
        for one in self.cells:
            # What failed is tried again, and takes part in as many rounds as the others did.
            one.first_round = self._rounds_kept - len(one.slices)
        missing = max(map(self._missing, self.cells))
        # Accuracy and memory are two more steps, and an interruption may have cut the rounds of a process in two.
        self.total = len(self.cells) * (missing + math.ceil(missing / plan.rounds_per_process) + 3)

    def measure(self, evaluation: Evaluation | None = None) -> None:
        """All rounds, in as many processes per cell as the plan says; the last of them also score the split, where there is one.

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
                    self._keep(Step(slices={place: one.slices[-1] for place, one in self._live()}, failures=self._failures()))
                    number += 1
                if not self._rounds_missing():
                    if evaluation is not None:
                        self.score(evaluation)
                    return

    def load(self, stack: contextlib.ExitStack, number: int = 0) -> None:
        """Start a worker per cell that can run, load it and warm it up, for the rounds from `number` on."""
        self._process = number
        unavailable = {target: target.unavailable() for target in {one.case.target for one in self.cells}}
        for one in self.cells:
            one.error = one.error or unavailable[one.case.target]
        self._stop_if_nothing_can_run()
        for place, one in self._live():
            with self._step(one, "loading"):
                if self._plan.searches_batch and one.found is None:
                    self._search_batch(place, one)
                worker = stack.enter_context(Worker(self._plan.timeout_s, self._plan.cpus))
                one.cpus = worker.bind()
                one.loads.append(worker.load(one.case.target.runtime, one.case.bundle, self._plan.options(one.case)))
                one.stable &= worker.warm_up()
                if self._plan.scenario == "server" and self._plan.rate is None and one.found is None:
                    self._search_rate(place, one, worker)
                self._workers[place] = worker
        self._stop_if_nothing_can_run()

    def run_round(self, number: int, cells: Collection[tuple[int, Measured]], last: int) -> None:
        """One slice of each of these cells: shuffled anew in every second round, and backwards in the next.

        No cell always runs after the same neighbour, and every cell comes early as often as late.

        Args:
            number: of the round, from 0.
            cells: with their places among all; their workers are loaded.
            last: rounds in all, for the progress.
        """
        plan, order = self._plan, list(cells)
        seconds, count = plan.seconds / plan.rounds, math.ceil(plan.calls / plan.rounds)
        random.Random(number // 2).shuffle(order)
        for place, one in order[::-1] if number % 2 else order:
            rate = one.found.rate if one.found else plan.rate
            with self._step(one, f"round {number + 1} of {last}"):
                # The same arrivals for every cell of a round: they are compared by it.
                found = self._workers[place].measure(plan.scenario, seconds, count, rate, number)
                one.slices.append(found.model_copy(update={"process": self._process}))

    def score(self, evaluation: Evaluation) -> None:
        """Accuracy, from the largest batch down; a batch size that answers like one that was scored shares its score.

        A runtime compiles a model per batch size, and what is timed must be what is scored.
        """
        scored: dict[tuple[str, Target], list[tuple[Logits, Score]]] = {}
        unscored = [(place, one) for place, one in self._live() if one.score is None]
        for place, one in sorted(unscored, key=lambda entry: -entry[1].case.batch):
            with self._step(one, "accuracy", vital=False):
                bundle, worker = one.case.bundle, self._workers[place]
                known = scored.setdefault((bundle.name, one.case.target), [])
                answers = worker.infer(bundle.reference()[0])
                alike = (score for logits, score in known if relative_error(answers, logits) <= _ALIKE)
                if (found := next(alike, None)) is None:
                    found = evaluate(worker.infer, bundle, evaluation)
                    known.append((answers, found))
                one.score = found
                self._keep(Step(scores={place: found}))

    def weigh(self) -> None:
        """Memory of a fresh process per cell, after all others have ended."""
        for _, one in self._live():
            with self._step(one, "memory", vital=False), Worker(self._plan.timeout_s, self._plan.cpus) as worker:
                worker.bind()
                case = one.case
                one.peak_mb, one.device_mb = worker.memory_mb(case.target.runtime, case.bundle, self._plan.options(case))

    def _search_batch(self, place: int, one: Measured) -> None:
        tried = find_batch(self._plan, one.case)
        best = max(tried, key=lambda entry: entry.images_per_s)
        self._take(place, one, Found(batch=best.batch, batch_search=tried))

    def _search_rate(self, place: int, one: Measured, worker: Worker) -> None:
        self._take(place, one, Found(batch=one.case.batch, rate=find_rate(self._plan, worker)))

    def _take(self, place: int, one: Measured, found: Found) -> None:
        one.take(found)
        self._keep(Step(found={place: found}))

    def _live(self) -> list[tuple[int, Measured]]:
        return [(place, one) for place, one in enumerate(self.cells) if one.error is None]

    def _failures(self) -> dict[int, Failure]:
        return {place: Failure.of(one.error) for place, one in enumerate(self.cells) if one.error is not None}

    def _missing(self, one: Measured) -> int:
        """Rounds that a cell still has to take part in."""
        return max(0, self._plan.rounds - len(one.slices))

    def _rounds_missing(self) -> int:
        return max((self._missing(one) for _, one in self._live()), default=0)

    def _keep(self, step: Step) -> None:
        if self._journal is not None:
            self._journal.add(step)

    def _restore(self, step: Step) -> None:
        for place, found in step.found.items():
            self.cells[place].take(found)
        for place, part in step.slices.items():
            self.cells[place].slices.append(part)
            self.cells[place].rounds_before = len(self.cells[place].slices)
        for place, score in step.scores.items():
            self.cells[place].score = score
        for place in step.failures:
            self.cells[place].slices.clear()
            self.cells[place].rounds_before = 0

    @contextlib.contextmanager
    def _step(self, one: Measured, text: str, *, vital: bool = True) -> Iterator[None]:
        """A failure touches this cell and no other: a vital one ends it, another is noted."""
        case = one.case
        self._progress(self._done, self.total, f"{case.bundle.name} on {case.target.label}, batch {case.batch}: {text}")
        try:
            yield
        except VitDeployError as error:
            if vital:
                one.error = error
            else:
                one.notes.append(f"no {text}: {error.message}")
        self._done += 1

    def _stop_if_nothing_can_run(self) -> None:
        errors = [one.error for one in self.cells]
        first = errors[0]
        if first is not None and all(isinstance(error, (MissingDependencyError, InputError)) for error in errors):
            raise first
