"""Decompose a trained model in one call: choose the method by its config, calibrate where the method needs it, apply it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from vitnla.allocation.latency_model import LatencyModel
from vitnla.calibration.cache import cached_statistics
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.common.measures import Distillation
from vitnla.common.schema import Record
from vitnla.data.dataset import Dataset
from vitnla.data.load import load_data
from vitnla.methods import METHODS
from vitnla.methods.registry import Decomposition, Method, make_config, method_of
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer
from vitnla.sources.description import Origin
from vitnla.sources.load import load_model
from vitnla.sources.source_model import SourceModel

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class DecomposedModel:
    """A decomposed model with everything that its export must know.

    Args:
        source: the dense model: its preprocessing, its class names, and the answers to agree with.
        decomposition: the new model, and a row for each of its encoder linears.
        method: name of the method that made it.
        config: the method's settings.
        data: the images that it was calibrated on, and that it will be verified and scored on.
        distillation: how the model was trained after the method had made it; `None` if it was not.
    """

    source: SourceModel
    decomposition: Decomposition
    method: str
    config: Record
    data: Dataset
    distillation: Distillation | None = None

    @classmethod
    def of_stored(cls, stored: SourceModel, origin: Origin, dense: SourceModel, data: Dataset) -> Self:
        """Return a model that was decomposed, and perhaps distilled, before: costs and predictions stay relative to the dense one.

        Args:
            stored: the decomposed model.
            origin: where its checkpoint says that it comes from.
            dense: the model that `origin` names.
            data: as above.
        """
        config = make_config(METHODS[origin.method], origin.method_config)
        return cls(dense, Decomposition(stored.model, origin.layers), origin.method, config, data, origin.distillation)

    @property
    def model(self) -> VisionTransformer:
        """The decomposed model."""
        return self.decomposition.model


def decompose(
    source: SourceModel | str, config: Record, data: Dataset | str = "demo", *, method: str | None = None,
    calibration_images: int | None = None, measure_latency: Callable[[ViTConfig], LatencyModel] | None = None,
    on_step: OnStep = lambda step: None,
) -> DecomposedModel:  # fmt: skip
    """Apply a decomposition to a trained model. The model given is never changed.

    Args:
        source: a loaded model, or a model SPEC for `load_model`.
        config: settings of a method, such as `SvdConfig(target_macs=0.6)`; their type says which method it is.
        data: a data set with a calibration split, or a data SPEC for `load_data`.
        method: the method's name, where several share one type of settings (the online rows of the slide deck).
        calibration_images: how many images of the calibration split to use; `None` is all.
        measure_latency: times operators for a method that has a target latency; `export.latency` has one.
        on_step: called with a line of text before each step.

    Raises:
        InputError: a SPEC cannot be loaded, `config` belongs to no method or to several, or it asks for what the model has not.
    """
    chosen = METHODS[method] if method is not None else method_of(config)
    if not isinstance(config, chosen.config):
        raise InputError(
            f"method '{chosen.name}': expected settings of type {chosen.config.__name__}, got {type(config).__name__}",
            "leave out `method`, or give that method's settings",
        )
    if isinstance(source, str):
        on_step(f"loading model {source}")
        source = load_model(source)
    if isinstance(data, str):
        on_step(f"loading data {data}")
        data = load_data(data)
    statistics = _calibrate(chosen, source, config, data, calibration_images, on_step)
    if chosen.lacks_latency(config):
        if measure_latency is None:
            hint = "pass measure_latency, or use target_macs; `vitdeploy export --target-latency` measures by itself"
            raise InputError(f"method '{chosen.name}': a target latency needs operators to be timed", hint)
        config = config.model_copy(update={"latency_model": measure_latency(source.model.config)})
    on_step(f"decomposing by {chosen.name}")
    return DecomposedModel(source, chosen.apply(source.model, statistics, config), chosen.name, config, data)


def _calibrate(
    method: Method[Record], source: SourceModel, config: Record, data: Dataset, count: int | None, on_step: OnStep
) -> Statistics | None:
    if not method.needs_statistics(config):
        return None

    def progress(done: int, total: int) -> None:
        on_step(f"calibrating on {done} of {total} images")

    return cached_statistics(source.model, data.split("calibration").head(count), source.preprocessing, on_progress=progress)
