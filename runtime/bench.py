"""The bench: a process per cell, all loaded, then measured in turns, so that whatever the machine does hits every cell alike."""

from __future__ import annotations

import contextlib
import math
import random
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from runtime.cells import Measured, Origin, make_cells
from runtime.evaluation import Evaluation, evaluate
from runtime.machine import machine_facts
from runtime.plan import BenchPlan, Target
from runtime.results import Cell
from runtime.worker_client import Worker
from vitnla.common.errors import InputError, MissingDependencyError, VitDeployError

Progress = Callable[[int, int, str], None]
"""Steps done, steps in all, and what is being done."""


def run_bench(
    plan: BenchPlan,
    evaluation: Evaluation | None = None,
    *,
    command: str = "",
    progress: Progress = lambda done, total, text: None,
) -> list[Cell]:
    """Measure every cell of the plan: speed in interleaved rounds, accuracy, then memory in processes of their own.

    Idle workers are blocked on a pipe, and their threads do not spin, so they take nothing from the one that runs.

    Args:
        plan: what to measure.
        evaluation: the split to score on; without it cells have no accuracy.
        command: the command line, to be recorded.
        progress: called after every step.

    Returns:
        A cell for each case, in the plan's order; one that could not be measured carries `error`.

    Raises:
        InputError: the plan is not sound or names an unknown runtime, or not one cell can be loaded.
        MissingDependencyError: not one cell can run here, for want of a runtime, a device or an engine.
    """
    plan.check()
    bench = _Bench(plan, progress)
    with contextlib.ExitStack() as stack:
        bench.load(stack)
        bench.measure()
        if evaluation is not None:
            bench.score(evaluation)
    bench.weigh()
    progress(bench.total, bench.total, "done")
    created = datetime.now(UTC).isoformat(timespec="seconds")
    origin = Origin(uuid.uuid4().hex[:12], created, command, plan.scenario, machine_facts())
    return make_cells(bench.cells, origin, plan.baseline)


class _Bench:
    """The state of a run: what was measured so far, and the live workers."""

    def __init__(self, plan: BenchPlan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self.cells = [Measured(case) for case in plan.cases()]
        self._workers: dict[str, Worker] = {}
        self._done = 0
        self.total = len(self.cells) * (plan.rounds + 2) + len({(one.case.bundle.name, one.case.target) for one in self.cells})

    def load(self, stack: contextlib.ExitStack) -> None:
        """Start a worker per cell that can run, load it and warm it up."""
        unavailable = {target: target.unavailable() for target in {one.case.target for one in self.cells}}
        for one in self.cells:
            one.error = unavailable[one.case.target]
        self._stop_if_nothing_can_run()
        for one in self._live():
            with self._step(one, "loading"):
                worker = stack.enter_context(Worker(self._plan.timeout_s))
                one.loaded = worker.load(one.case.target.runtime, one.case.bundle, self._plan.options(one.case))
                one.stable = worker.warm_up()
                self._workers[one.case.key] = worker
        self._stop_if_nothing_can_run()

    def measure(self) -> None:
        """One slice of every cell per round, in an order shuffled by round: no cell always runs after the same neighbour."""
        plan, order = self._plan, random.Random(0)
        seconds, count = plan.seconds / plan.rounds, math.ceil(plan.min_count / plan.rounds)
        for number in range(plan.rounds):
            cells = self._live()
            order.shuffle(cells)
            for one in cells:
                with self._step(one, f"round {number + 1} of {plan.rounds}"):
                    one.slices.append(self._workers[one.case.key].measure(plan.scenario, seconds, count))

    def score(self, evaluation: Evaluation) -> None:
        """Accuracy once per bundle and target, on the worker with the largest batch."""
        groups: dict[tuple[str, Target], list[Measured]] = {}
        for one in self._live():
            groups.setdefault((one.case.bundle.name, one.case.target), []).append(one)
        for group in groups.values():
            largest = max(group, key=lambda one: one.case.batch)
            with self._step(largest, "accuracy", vital=False):
                found = evaluate(self._workers[largest.case.key].infer, largest.case.bundle, evaluation)
                for one in group:
                    one.score = found

    def weigh(self) -> None:
        """Peak memory of a fresh process per cell, after all others have ended."""
        for one in self._live():
            with self._step(one, "memory", vital=False), Worker(self._plan.timeout_s) as worker:
                one.peak_mb = worker.peak_memory_mb(one.case.target.runtime, one.case.bundle, self._plan.options(one.case))

    def _live(self) -> list[Measured]:
        return [one for one in self.cells if one.error is None]

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
