"""Predictor of shards, used by local processes and Ray actors."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.batch.evaluation_plan import PLAN, Plan, open_planned, part_path
from export.batch.inputs import Inputs
from export.batch.part import PartReport, part_bytes, read_report, write_part
from export.graph.inputs import bundle_preparation
from runtime.bundle.schema import open_bundle
from runtime.check.logits import probabilities
from runtime.process import memory
from runtime.runners.base import Images, RunOptions
from runtime.runners.batches import run_in_batches
from runtime.runners.registry import runner
from vitnla.common.errors import InputError
from vitnla.data.image_files import Images as Chosen

_MIB = 1 << 20


class Predictor:
    """An open bundle and the images of an evaluation.

    Args:
        folder: of the evaluation; contains the plan, and receives the parts.
        threads: CPU threads of the runner.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder, self._plan = folder, Plan.read(folder / PLAN)
        plan = self._plan
        self._bundle = open_bundle(open_planned(plan))
        self._prepare = bundle_preparation(self._bundle)
        found = runner(plan.runtime)
        found.availability().require(plan.runtime)
        found.imports()
        options = RunOptions(threads, plan.provider, plan.batch, "throughput", plan.precision)
        self._session = found.load(self._bundle, options)
        self._inputs = Inputs(folder, plan)
        self._columns = None if plan.columns is None else np.asarray(plan.columns, np.int64)

    def run(self, number: int) -> PartReport:
        """Run a shard, unless its part exists already, so that a task repeated after a crash neither loses nor duplicates rows."""
        indices, path = self._plan.span(number), part_path(self._folder, number)
        if (done := read_report(path, len(indices))) is not None:
            return done
        began, start = time.time(), time.perf_counter()
        shard = self._inputs.shard(number)
        values, errors = np.zeros((len(indices), self._classes), np.float64), dict[int, str]()
        for first in range(0, len(indices), self._plan.batch):
            batch = range(first, min(first + self._plan.batch, len(indices)))
            images, good, failed = self._read(shard.images[first : batch.stop], batch)
            errors |= failed
            if good:
                values[good] = self._probabilities(images)
        readable = np.array([position not in errors for position in range(len(indices))])
        labelled = readable & (shard.labels >= 0)
        report = PartReport(
            number=number, images=len(indices), unreadable=len(errors), labelled=int(labelled.sum()),
            correct=int((labelled & (self._answers(values) == shard.labels)).sum()),
            began=began, seconds=time.perf_counter() - start, peak_rss_mb=memory.peak() / _MIB,
        )  # fmt: skip
        write_part(path, part_bytes(indices, shard, values, errors, self._bundle.manifest.labels, report))
        return report

    def _answers(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the most probable class [N] among those that the data have, of probabilities [N, classes]."""
        if self._columns is None:
            return np.asarray(values.argmax(axis=1), np.int64)
        return np.asarray(self._columns[values[:, self._columns].argmax(axis=1)], np.int64)

    @property
    def _classes(self) -> int:
        return int(self._bundle.manifest.output.shape[-1])

    def _read(self, chosen: Chosen, batch: range) -> tuple[Images, list[int], dict[int, str]]:
        """Return prepared images, their positions in the shard, and position -> reason of unreadable ones.

        Images are read one by one only if reading them together fails.
        """
        try:
            return self._prepare(chosen), list(batch), {}
        except InputError:
            parts, good, failed = [], [], {}
            for place, position in enumerate(batch):
                try:
                    parts.append(self._prepare(chosen[place : place + 1]))
                    good.append(position)
                except InputError as error:
                    failed[position] = error.message
            return (np.concatenate(parts) if parts else np.empty(0, np.float32)), good, failed

    def _probabilities(self, images: Images) -> NDArray[np.float64]:
        answer = run_in_batches(self._session, images, self._plan.batch)
        return answer.astype(np.float64) if self._bundle.gives_probabilities else probabilities(answer)
