"""Rows of a study: trained from scratch, or decomposed from the dense model of their seed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from export.study.measure import inference_cost, training_peak_mb
from export.study.request import Item, Setup
from runtime.results.study import EpochPoint
from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import VitDeployError
from vitnla.common.jsonl import append_records, read_records
from vitnla.common.schema import Record
from vitnla.data.dataset import Split
from vitnla.methods.registry import Decomposition
from vitnla.model.checkpoint import load_checkpoint, save_checkpoint
from vitnla.model.config import ViTConfig
from vitnla.model.cost import encoder_macs
from vitnla.model.predict import predict
from vitnla.model.vit import VisionTransformer
from vitnla.sources.description import write_description
from vitnla.training.initialise import new_model
from vitnla.training.loop import Progress, default_device, read_log
from vitnla.training.run import shape_with
from vitnla.training.supervised import train

_SHAPING_IMAGES = 32
Report = Callable[[float, str], None]
"""Callback with the share of the row that is done, and the current step."""


class TestAccuracy(Record):
    """A line of `test.jsonl` beside a run's log: test accuracy after an epoch, kept for resumed runs."""

    epoch: int
    top1: float


@dataclass(frozen=True)
class Calibration:
    """Calibration statistics of a dense model, and their computation time in seconds."""

    statistics: Statistics
    seconds: float


class SeedRows:
    """Factory of the rows of one seed, whose dense model is trained and calibrated once."""

    def __init__(self, setup: Setup, folder: Path, dense: Item) -> None:
        self._setup = setup
        self._folder = folder
        self._dense = dense

    def make(self, item: Item, report: Report) -> dict[str, Any]:
        """Return the measurements of a row, as fields of `StudyRow`.

        Raises:
            VitDeployError: the row cannot be made; the message has the reason.
        """
        return self._train_row(item, report) if item.is_trained else self._decompose_row(item, report)

    def _train_row(self, item: Item, report: Report) -> dict[str, Any]:
        run, config = self._run_folder(item), self._shape(item)
        epochs = self._train(item, config, report)
        self._describe(run)
        top1 = next(point.test_top1 for point in reversed(epochs) if point.kept)
        report(1.0, "memory of training")
        peak = training_peak_mb(run, self._setup)
        costs = self._costs(load_checkpoint(run), run, report)
        return {"epochs": epochs, "top1": top1, "training_peak_mb": peak, **costs}

    def _decompose_row(self, item: Item, report: Report) -> dict[str, Any]:
        report(0.0, "the dense model of this seed")
        dense = self._dense_model()
        calibration = self._calibration if item.method.needs_statistics(item.config) else None
        report(0.3, "decomposing")
        statistics = calibration.statistics if calibration else None
        started = time.perf_counter()
        decomposition: Decomposition = item.method.apply(dense, statistics, item.config)
        seconds = time.perf_counter() - started
        run = self._run_folder(item)
        save_checkpoint(decomposition.model, run, replace=True)
        self._describe(run)
        report(0.5, "test accuracy")
        return {
            "calibrate_s": calibration.seconds if calibration else None,
            "decompose_s": seconds,
            "top1": self._test_top1(decomposition.model),
            **self._costs(decomposition.model, run, report),
        }

    def _costs(self, model: VisionTransformer, checkpoint: Path, report: Report) -> dict[str, Any]:
        report(1.0, "speed and memory of inference")
        cost = inference_cost(checkpoint, self._setup)
        return {
            "inference": cost.points,
            "inference_peak_mb": cost.peak_mb,
            "macs": encoder_macs(model.config, self._setup.model),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "device": str(default_device()),
        }

    def _train(self, item: Item, config: ViTConfig, report: Report) -> tuple[EpochPoint, ...]:
        """Train, or resume the training of an interrupted study; test accuracy is recorded after each epoch."""
        setup, run = self._setup, self._run_folder(item)
        tested = run / "test.jsonl"

        def note(epoch: int, model: VisionTransformer) -> None:
            append_records(tested, [TestAccuracy(epoch=epoch, top1=self._test_top1(model))], "choose another folder with -o")

        progress = Progress(on_step=lambda done, total, loss: report(done / total, f"loss {loss:.3f}"), on_average=note)
        training = setup.preset.train.model_copy(update={"seed": item.seed})
        train(config, training, setup.preprocessing, setup.training, setup.data.split("validation"), run, progress)
        top1 = {line.epoch: line.top1 for line in read_records(tested, TestAccuracy, "vitdeploy study")}
        return tuple(
            EpochPoint(
                epoch=log.epoch, train_s=log.train_seconds or log.seconds, train_loss=log.train_loss,
                validation_top1=log.validation_top1, test_top1=top1[log.epoch], kept=log.best,
            )
            for log in read_log(run)
        )  # fmt: skip

    def _shape(self, item: Item) -> ViTConfig:
        """Return the config of the model that a row trains: the dense one's, changed by the method."""
        if not item.method.needs_statistics(item.config):
            return shape_with(self._setup.model, item.method, item.config)
        # A shape does not depend on what calibration saw, but the method asks for it: an untrained model and few images will do.
        dense = new_model(self._setup.model, item.seed)
        few = self._setup.data.split("calibration").head(_SHAPING_IMAGES)
        shaped: Decomposition = item.method.apply(dense, self._collect(dense, few), item.config)
        return shaped.model.config

    def _dense_model(self) -> VisionTransformer:
        """Return the model of the dense row, trained again if its run no longer exists.

        Raises:
            VitDeployError: the training failed.
        """
        if isinstance(self._dense_outcome, VitDeployError):
            raise self._dense_outcome
        return self._dense_outcome

    @cached_property
    def _dense_outcome(self) -> VisionTransformer | VitDeployError:
        try:
            self._train(self._dense, self._setup.model, lambda share, text: None)
            return load_checkpoint(self._run_folder(self._dense))
        except VitDeployError as error:
            return error

    @cached_property
    def _calibration(self) -> Calibration:
        dense = self._dense_model()
        started = time.perf_counter()
        statistics = self._collect(dense, self._setup.data.split("calibration"))
        return Calibration(statistics, time.perf_counter() - started)

    def _collect(self, model: VisionTransformer, split: Split) -> Statistics:
        return collect(model, split.images, self._setup.preprocessing)

    def _test_top1(self, model: VisionTransformer) -> float:
        test = self._setup.data.split("test")
        classes = predict(model, self._setup.preprocessing, test.images, device=default_device()).argmax(1)
        return float((classes == test.labels).mean())

    def _describe(self, run: Path) -> None:
        """Write the description that makes a run a source model for `vitdeploy export --model`."""
        write_description(run, self._setup.preprocessing, self._setup.data.labels)

    def _run_folder(self, item: Item) -> Path:
        return self._folder / "runs" / f"{re.sub(r'[^A-Za-z0-9.=-]+', '-', item.label)}-seed{item.seed}"
