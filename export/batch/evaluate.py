"""Evaluation from request to summary: finished parts are reused, missing ones computed, and all summed up at the end."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from export.batch import evaluation_plan as places
from export.batch.evaluation_plan import Plan, part_path
from export.batch.inputs import UNKNOWN, data_hash, load_images, numbered, write_listing
from export.batch.local import run_local
from export.batch.part import PartReport, read_report, require_pyarrow, unreadable_rows
from export.batch.ray_engine import require_ray, run_ray
from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle
from runtime.process.child import WorkerError
from runtime.results.statistics import Interval, wilson
from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically
from vitnla.common.notes import note_once
from vitnla.common.schema import Record
from vitnla.data.class_mapping import ClassMismatch, match_classes
from vitnla.data.image_files import ImageFiles

Engine = Literal["local", "ray"]
"""Engine that runs the shards."""


@dataclass(frozen=True)
class EvaluationRequest:
    """Request of `vitdeploy evaluate`; `Plan` is its stored part."""

    bundle: Bundle
    target: Target
    data: str
    split: str
    destination: Path
    engine: Engine
    address: str | None
    workers: int
    threads: int
    batch: int
    shard: int
    limit: int | None
    repeat: int
    replace: bool
    class_map: Path | None = None


class Summary(Record):
    """Summary of an evaluation over all parts, of this run or earlier ones; rates are of this run only."""

    bundle: str
    data: str
    split: str
    runtime: str
    engine: Engine
    workers: int
    parts: int
    images: int
    unreadable: int
    labelled: int
    top1: float | None
    top1_low: float | None
    top1_high: float | None
    scored_classes: int
    """Number of classes among which `top1` predicts: all of the bundle's, or those that the data have."""
    resumed: int
    """Images done by earlier runs."""
    seconds: float
    """Wall time of this run, including the start of the workers."""
    startup_s: float
    """Seconds until the first worker began its first shard."""
    images_per_s: float | None
    """Images of this run / (seconds - startup_s); null where there was nothing left to do."""
    peak_rss_mb: float
    """Largest peak RSS of a worker, MiB."""


def evaluate(request: EvaluationRequest, on_progress: Callable[[float, float, str], None]) -> Summary:
    """Run every image that has no row yet, and return the summary of all images.

    Raises:
        InputError: an input is not usable, or the folder holds something else.
        MissingDependencyError: Ray, pyarrow or the runtime is missing.
        WorkerError: a shard failed for good.
    """
    require_pyarrow()
    if request.engine == "ray":
        require_ray(request.address)
    folder, plan = request.destination.absolute(), _settled(request)
    missing = [number for number in range(plan.shards) if _report(folder, plan, number) is None]
    resumed = plan.total - sum(len(plan.span(number)) for number in missing)
    start, asked, done, peak = time.perf_counter(), time.time(), 0, 0.0
    first = float("inf")
    on_progress(resumed, plan.total, "starting workers")
    for report in _reports(request, folder, missing):
        done += report.images
        first, peak = min(first, report.began), max(peak, report.peak_rss_mb)
        seconds = time.perf_counter() - start
        on_progress(resumed + done, plan.total, f"{resumed + done:,} of {plan.total:,} images, {done / seconds:,.0f}/s")
    seconds = time.perf_counter() - start
    places.sweep(folder)
    startup = min(max(0.0, first - asked), seconds / 2) if done else 0.0  # clocks of other machines may be off
    rate = done / (seconds - startup) if done else None
    summary = _summed(request, plan, folder, resumed, (seconds, startup, rate, peak))
    write_atomically(folder / places.SUMMARY, summary.to_json())
    return summary


def _settled(request: EvaluationRequest) -> Plan:
    """Return the plan, stored in the folder; a folder with the same plan is resumed."""
    if request.bundle.fixed_batch not in (None, request.batch):
        fixed = request.bundle.fixed_batch
        raise InputError(f"this graph runs at batch {fixed} only, got batch {request.batch}", f"use -b {fixed}")
    folder, bundle = request.destination.absolute(), request.bundle.folder.absolute()
    images, names = load_images(request.data, request.split, request.class_map)
    columns = _columns(request, names)
    split = numbered(images, columns).head(request.limit)
    plan = Plan(
        bundle=str(bundle), manifest_sha256=places.manifest_hash(bundle), data=_absolute(request.data), split=request.split,
        data_sha256=data_hash(split), files=isinstance(split.images, ImageFiles), size=getattr(split.images, "size", None),
        images=len(split), repeat=request.repeat, shard=request.shard, batch=request.batch, runtime=request.target.runtime,
        provider=request.target.provider, precision=request.target.precision, columns=columns,
    )  # fmt: skip
    if places.settle(folder, plan, replace=request.replace):
        return plan
    if request.replace and folder.is_dir():
        shutil.rmtree(folder)
    (folder / places.PARTS).mkdir(parents=True, exist_ok=True)
    write_listing(folder, plan, split)
    places.write_plan(folder, plan)
    return plan


def _columns(request: EvaluationRequest, names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return `Plan.columns`; all `UNKNOWN` for a bundle that outputs features instead of classes.

    Raises:
        ClassMismatch: the bundle's classes are not those of the data.
    """
    if not names:
        return None
    try:
        mapping = match_classes(names, request.bundle.manifest.labels, request.data)
    except ClassMismatch as error:
        if not error.features:
            raise
        note_once(f"{error.message}: no accuracy is measured")
        return (UNKNOWN,) * len(names)
    if mapping.note is not None:
        note_once(mapping.note)
    return mapping.columns


def _absolute(spec: str) -> str:
    """Return the SPEC with an absolute path, for workers with another current folder."""
    name, colon, place = spec.partition(":")
    return f"{name}:{Path(place).absolute()}" if colon else spec


def _report(folder: Path, plan: Plan, number: int) -> PartReport | None:
    return read_report(part_path(folder, number), len(plan.span(number)))


def _reports(request: EvaluationRequest, folder: Path, missing: list[int]) -> Iterator[PartReport]:
    if not missing:
        return iter(())
    if request.engine == "ray":
        return run_ray(folder, missing, request.workers, request.threads, request.address)
    return run_local(folder, missing, request.workers, request.threads)


def _summed(
    request: EvaluationRequest, plan: Plan, folder: Path, resumed: int, run: tuple[float, float, float | None, float]
) -> Summary:
    """Sum up the parts by their footers, and list unreadable images; only parts with such images have their rows read."""
    unreadable = labelled = correct = 0
    lines: list[str] = []
    for number in range(plan.shards):
        if (report := _report(folder, plan, number)) is None:
            raise WorkerError(f"part {number} is missing although its worker reported it", "run the same command again")
        unreadable, labelled, correct = unreadable + report.unreadable, labelled + report.labelled, correct + report.correct
        if report.unreadable:
            lines += [json.dumps(row) for row in unreadable_rows(part_path(folder, number))]
    write_atomically(folder / places.UNREADABLE, "".join(f"{line}\n" for line in lines))
    top1 = wilson(correct, labelled) if labelled else Interval(float("nan"), float("nan"), float("nan"))
    seconds, startup, rate, peak = run
    known = labelled > 0
    return Summary(
        bundle=request.bundle.name, data=plan.data, split=plan.split, runtime=request.target.label, engine=request.engine,
        workers=request.workers, parts=plan.shards, images=plan.total, unreadable=unreadable, labelled=labelled,
        scored_classes=len(plan.columns or ()) or int(request.bundle.manifest.output.shape[-1]),
        top1=top1.value if known else None, top1_low=top1.low if known else None, top1_high=top1.high if known else None,
        resumed=resumed, seconds=seconds, startup_s=startup, images_per_s=rate, peak_rss_mb=peak,
    )  # fmt: skip
