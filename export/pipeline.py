"""Pipeline of `vitdeploy export`, from the command's request to the written bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from export.bundle.from_model import write_model_bundle
from export.bundle.plan import ExportOptions, ExportPlan, plan_export
from export.bundle.steps import default_name
from export.latency.measure import cached_latency
from export.precision.request import Lowering
from runtime.bundle.schema import Bundle
from runtime.machine.facts import usable_cores
from runtime.runners.runtime_precision import ORT_FP32, RuntimePrecision
from vitnla.allocation.latency_model import LatencyModel
from vitnla.common.schema import Record
from vitnla.data.load import load_data
from vitnla.decomposition import DecomposedModel, OnStep, decompose
from vitnla.methods import METHODS
from vitnla.methods.none.config import NONE
from vitnla.methods.registry import make_config
from vitnla.model.config import ViTConfig
from vitnla.sources.description import Origin
from vitnla.sources.load import load_dense, load_model
from vitnla.sources.options import NO_OPTIONS, SourceOptions
from vitnla.sources.source_model import SourceModel


@dataclass(frozen=True)
class ExportRequest:
    """A request for an export: SPECs of model and data, a method with its settings, options of the bundle."""

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
    """Number of images of the calibration split; `None` is all."""
    latency_batch: int = 1
    """Batch size of the operator timing, for methods that need one."""
    latency_threads: int | None = None
    """CPU threads of the operator timing; `None` is all cores."""
    latency_target: RuntimePrecision = ORT_FP32
    """Runtime and precision of the operator timing."""
    source_options: SourceOptions = NO_OPTIONS
    """Options of `load_model` besides the SPEC."""
    class_map: Path | None = None
    """Renames classes of the data, see `vitnla.data.class_mapping.read_class_map`."""


def export_model(request: ExportRequest, on_step: OnStep, on_note: OnStep = lambda note: None) -> Bundle:
    """Load, calibrate, decompose, and write a bundle. With method `none`, an already decomposed model is not changed.

    `on_step` is called with a line of text before each step, `on_note` with what was chosen or assumed about the source.

    Raises:
        VitDeployError: something given is not usable, parity was not met, or a package is missing; nothing is left behind.
    """
    method = METHODS[request.method]
    config = make_config(method, request.settings)
    lowering = request.options.lowering()
    if method.lacks_latency(config):
        request.latency_target.require()
    source = load_model(request.model, request.source_options)
    for note in source.notes:
        on_note(note)
    if source.origin is not None and method.name == NONE:
        return _export_as_it_is(request, source, source.origin, lowering, on_step)
    plan = _plan(request, source, method.name, config, lowering, on_step)
    decomposed = decompose(
        source, config, plan.data, method=method.name, calibration_images=request.calibration_images,
        measure_latency=partial(_time_operators, request, on_step), on_step=on_step,
    )  # fmt: skip
    return write_model_bundle(decomposed, plan, request.command, on_step)


def _export_as_it_is(request: ExportRequest, stored: SourceModel, origin: Origin, lowering: Lowering, on_step: OnStep) -> Bundle:
    """Export an already decomposed, possibly distilled model; costs and predictions stay relative to the dense one."""
    dense = load_dense(origin)
    plan = _plan(request, dense, origin.method, make_config(METHODS[origin.method], origin.method_config), lowering, on_step)
    decomposed = DecomposedModel.of_stored(stored, origin, dense, plan.data)
    return write_model_bundle(decomposed, plan, request.command, on_step)


def _plan(
    request: ExportRequest, source: SourceModel, method: str, config: Record, lowering: Lowering, on_step: OnStep
) -> ExportPlan:
    destination = request.output or Path("artifacts") / default_name(request.model, method, config, lowering)
    on_step(f"loading data {request.data}")
    return plan_export(source, load_data(request.data, request.class_map), request.options, destination, lowering)


def _time_operators(request: ExportRequest, on_step: OnStep, config: ViTConfig) -> LatencyModel:
    target = request.latency_target

    def progress(done: int, total: int) -> None:
        on_step(f"timing operators on {target.label}, round {done} of {total}")

    return cached_latency(config, target, request.latency_batch, request.latency_threads or usable_cores(), progress)
