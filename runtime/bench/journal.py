"""The journal of an unfinished bench, a file beside the results file from which the same command resumes after an interruption.

Its name holds a digest of the plan, the machine and the versions, so another bench never reads it. A line is added for every step
that is complete, such as a round of all cells: ratios pair cells by round, so half a round is of no use.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from runtime.bench.plan import BenchPlan
from runtime.check.accuracy import Evaluation, Score
from runtime.machine.facts import machine_facts
from runtime.process.client import Slice
from runtime.results.schema import BatchRate
from vitnla.common.errors import InputError, VitDeployError
from vitnla.common.jsonl import append_records, read_records
from vitnla.common.schema import Record

_HINT = "choose another --results-file"


class Failure(Record):
    """The reason why a cell has no result."""

    message: str
    hint: str

    @classmethod
    def of(cls, error: VitDeployError) -> Failure:
        """Return the message and the hint of an error."""
        return cls(message=error.message, hint=error.hint)


class SearchResult(Record):
    """The result of the search that precedes the measurement of a cell."""

    batch: int
    batch_search: tuple[BatchRate, ...] = ()
    rate: float | None = None
    """Queries per second, of the server scenario."""


class Step(Record):
    """One line of the journal. Cells are named by their index in the plan."""

    found: dict[int, SearchResult] = Field(default_factory=dict)
    """Results of searches. The key keeps its name, so that journals of earlier versions can still be resumed."""
    slices: dict[int, Slice] = Field(default_factory=dict)
    """A round of every cell that had not failed."""
    scores: dict[int, Score] = Field(default_factory=dict)
    failures: dict[int, Failure] = Field(default_factory=dict)


class Journal:
    """The journal of one bench; the file is made by the first step.

    Args:
        path: the file.
        on_cut: called with a notice where the last line was cut in the middle and left out.
    """

    def __init__(self, path: Path, on_cut: Callable[[str], None] = lambda notice: None) -> None:
        self.path = path
        self.steps: tuple[Step, ...] = ()
        if path.is_file() and path.stat().st_size:
            self.steps = tuple(read_records(path, Step, "vitdeploy bench", on_cut))

    def add(self, step: Step) -> None:
        """Append a complete step; it is on disk when this returns.

        Raises:
            InputError: the file cannot be written.
        """
        append_records(self.path, [step], _HINT)

    def remove(self) -> None:
        """Remove the file. Call it when the cells are in the results file."""
        self.path.unlink(missing_ok=True)

    @property
    def rounds(self) -> int:
        """Rounds that were complete before the interruption."""
        return sum(bool(step.slices) for step in self.steps)


@contextlib.contextmanager
def sole_writer(results: Path) -> Iterator[None]:
    """Lock the results file for one bench: two of them would disturb each other, and mix their rounds in one journal.

    The lock is the system's, so a killed process leaves none, though its file stays until the next bench.

    Raises:
        InputError: another bench holds it, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    path = results.with_name(f".{results.name}.lock")
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another bench is writing {results}", f"wait for it to end, or {_HINT}") from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}", _HINT) from error
    try:
        yield
    finally:
        lock.release()


def open_journal(
    results: Path, plan: BenchPlan, evaluation: Evaluation | None, on_cut: Callable[[str], None] = lambda notice: None
) -> Journal:
    """Return the journal of exactly this bench, with the steps from before an interruption."""
    return Journal(results.with_name(f"{results.name}.{_digest(plan, evaluation)}.unfinished"), on_cut)


def _digest(plan: BenchPlan, evaluation: Evaluation | None) -> str:
    machine = machine_facts()
    for gpu in machine["gpus"]:
        del gpu["sm_clock_mhz"]  # the one fact that changes by itself
    named: dict[str, Any] = {
        "machine": machine,
        "bundles": [(bundle.manifest.model_dump_json(), [record.model_dump_json() for record in bundle.engine_records()])
                    for bundle in plan.bundles],
        "targets": [asdict(target) for target in plan.targets],
        "only": {name: sorted(runtimes) for name, runtimes in plan.only.items()},
        "numbers": [plan.batches, plan.threads, plan.scenario, plan.seconds, plan.min_count, plan.rounds, plan.processes,
                    plan.rate, plan.p99_bound_ms, plan.cpus],
        "images": None if evaluation is None else evaluation.fingerprint(len(evaluation.labels)),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:12]
