"""What `vitdeploy export` does, from the words typed to the written bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from export.pipeline import ExportOptions, check_export, export_bundle
from runtime.bundle import Bundle
from vitnla.calibration.cached import cached_statistics
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.common.schema import Record, first_complaint
from vitnla.data.dataset import Dataset
from vitnla.data.dispatch import load_data
from vitnla.methods import METHODS
from vitnla.methods.base import Method
from vitnla.sources.dispatch import load_model
from vitnla.sources.model import SourceModel


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


def export_model(request: ExportRequest, on_step: Callable[[str], None]) -> Bundle:
    """Load, calibrate, decompose, and write a bundle.

    Raises:
        VitDeployError: something given is not usable, parity was not met, or a package is missing; nothing is left behind.
    """
    method = METHODS[request.method]
    config = make_config(method, request.settings)
    source = load_model(request.model)
    destination = request.output or Path("artifacts") / default_name(request.model, method, config)
    on_step(f"loading data {request.data}")
    data = load_data(request.data)
    check_export(source, data, request.options, destination)
    statistics = _calibrate(source, data, request.calibration_images, on_step) if method.needs_statistics(config) else None
    on_step(f"decomposing by {method.name}")
    decomposition = method.apply(source.model, statistics, config)
    return export_bundle(
        source, decomposition, method=method.name, method_config=config.model_dump(mode="json"), data=data,
        destination=destination, options=request.options, command=request.command, on_step=on_step,
    )  # fmt: skip


def make_config(method: Method[Any], settings: Mapping[str, Any]) -> Record:
    """A method's config from the settings that were given.

    Raises:
        InputError: the method has no such setting, or its value is out of range.
    """
    for name in settings:
        if name not in method.config.model_fields:
            takes = ", ".join(method.config.model_fields) or "no settings"
            raise InputError(f"method '{method.name}' has no setting '{name}'", f"it takes {takes}; see vitdeploy methods")
    try:
        config: Record = method.config.model_validate(dict(settings))
    except ValidationError as error:
        raise InputError(f"method '{method.name}': {first_complaint(error)}", "see vitdeploy export --help") from error
    return config


def default_name(spec: str, method: Method[Any], config: Record) -> str:
    """A bundle's name from its model, its method and the settings that are not the default, such as `demo-svd-0.65`."""
    words = [Path(spec.partition(":")[2] or spec).name, method.name]
    words += [str(value) for value in config.model_dump(exclude_defaults=True).values()]
    return "-".join(words)


def _calibrate(source: SourceModel, data: Dataset, count: int | None, on_step: Callable[[str], None]) -> Statistics:
    split = data.split("calibration")
    split = split.head(count) if count else split

    def progress(done: int, total: int) -> None:
        on_step(f"calibrating on {done} of {total} images")

    return cached_statistics(source.model, split, source.preprocessing, on_progress=progress)
