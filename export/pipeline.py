"""What `vitdeploy export` does, from the words typed to the written bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.bundle.plan import ExportOptions, check_export
from export.bundle.steps import default_name
from export.bundle.writer import export_bundle
from export.latency.measure import cached_latency
from export.latency.target import DEFAULT_TARGET, LatencyTarget
from runtime.bundle.schema import Bundle
from runtime.machine.facts import usable_cores
from vitnla.allocation.latency_model import LatencyModel
from vitnla.calibration.cache import cached_statistics
from vitnla.calibration.statistics import Statistics
from vitnla.data.dataset import Dataset
from vitnla.data.load import load_data
from vitnla.methods import METHODS
from vitnla.methods.none.config import NONE
from vitnla.methods.registry import Decomposition, make_config
from vitnla.sources.description import Origin
from vitnla.sources.load import load_dense, load_model
from vitnla.sources.source_model import SourceModel


@dataclass(frozen=True)
class ExportRequest:
    """What to export: SPECs of model and data, a method with its settings, and how to write the bundle."""

    model: str
    data: str
    method: str
    settings: Mapping[str, Any]
    """Fields of the method's config; those left out take their defaults."""
    output: Path | None
    """Bundle folder; `None` is `artifacts/<name>`."""
    options: ExportOptions
    command: str
    calibration_images: int | None = None
    """How many images of the calibration split; `None` is all."""
    latency_batch: int = 1
    """Images at a time, where a method needs to know what operators cost."""
    latency_threads: int | None = None
    """Threads of that measurement; `None` is all cores."""
    latency_target: LatencyTarget = DEFAULT_TARGET
    """Where it is taken."""
    class_map: Path | None = None
    """Renames classes of the data, see `vitnla.data.class_mapping.read_class_map`."""


def export_model(request: ExportRequest, on_step: Callable[[str], None]) -> Bundle:
    """Load, calibrate, decompose, and write a bundle. By method `none`, a model that was decomposed before stays as it is.

    Raises:
        VitDeployError: something given is not usable, parity was not met, or a package is missing; nothing is left behind.
    """
    method = METHODS[request.method]
    config = make_config(method, request.settings)
    if method.lacks_latency(config):
        request.latency_target.require()
    source = load_model(request.model)
    if source.origin is not None and method.name == NONE:
        return _export_as_it_is(request, source, source.origin, on_step)
    destination = request.output or Path("artifacts") / default_name(
        request.model, method.name, config, request.options.lowering()
    )
    on_step(f"loading data {request.data}")
    data = load_data(request.data, request.class_map)
    check_export(source, data, request.options, destination)
    statistics = _calibrate(source, data, request.calibration_images, on_step) if method.needs_statistics(config) else None
    if method.lacks_latency(config):
        config = config.model_copy(update={"latency_model": _time_operators(source, request, on_step)})
    on_step(f"decomposing by {method.name}")
    decomposition = method.apply(source.model, statistics, config)
    return export_bundle(
        source, decomposition, method=method.name, method_config=config.model_dump(mode="json"), data=data,
        destination=destination, options=request.options, command=request.command, on_step=on_step,
    )  # fmt: skip


def _export_as_it_is(request: ExportRequest, stored: SourceModel, origin: Origin, on_step: Callable[[str], None]) -> Bundle:
    """Export a model that was decomposed, and perhaps distilled, before: its costs and answers stay relative to the dense one."""
    method = METHODS[origin.method]
    config = make_config(method, origin.method_config)
    name = default_name(request.model, method.name, config, request.options.lowering())
    dense = load_dense(origin)
    on_step(f"loading data {request.data}")
    return export_bundle(
        dense, Decomposition(stored.model, origin.layers), method=method.name, method_config=origin.method_config,
        data=load_data(request.data, request.class_map), destination=request.output or Path("artifacts") / name, options=request.options,
        command=request.command, distillation=origin.distillation, on_step=on_step,
    )  # fmt: skip


def _time_operators(source: SourceModel, request: ExportRequest, on_step: Callable[[str], None]) -> LatencyModel:
    target = request.latency_target

    def progress(done: int, total: int) -> None:
        on_step(f"timing operators on {target.label}, round {done} of {total}")

    threads = request.latency_threads or usable_cores()
    return cached_latency(source.model.config, target, request.latency_batch, threads, progress)


def _calibrate(source: SourceModel, data: Dataset, count: int | None, on_step: Callable[[str], None]) -> Statistics:
    split = data.split("calibration").head(count)

    def progress(done: int, total: int) -> None:
        on_step(f"calibrating on {done} of {total} images")

    return cached_statistics(source.model, split, source.preprocessing, on_progress=progress)
