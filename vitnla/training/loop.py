"""The generic training loop: resumable after every epoch; the best epoch by validation accuracy is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record
from vitnla.data.dataset import Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.checkpoint import write_checkpoint
from vitnla.model.config import ViTConfig
from vitnla.model.predict import predict
from vitnla.model.vit import VisionTransformer
from vitnla.training.config import Schedule
from vitnla.training.optimizer import MovingAverage, learning_rate
from vitnla.training.state import STATE, Standing, check_run_folder, restore_run, save_run

LOG = "log.jsonl"
_REPORT_EVERY_S = 0.5


class EpochLog(Record):
    """One line of `log.jsonl`. Accuracies are fractions, of the moving average on the validation split."""

    epoch: int
    train_loss: float
    validation_top1: float
    best: bool
    learning_rate: float
    tokens: int
    seconds: float
    """Duration of training and validation; `train_seconds` is training alone, absent in older logs."""
    train_seconds: float | None = None
    device: str


@dataclass
class Progress:
    """Callbacks to display progress during training."""

    on_step: Callable[[int, int, float], None] = lambda done, total, loss: None
    on_epoch: Callable[[EpochLog, float], None] = lambda log, remaining_s: None
    on_average: Callable[[int, VisionTransformer], None] = lambda epoch, model: None
    """Called with the moving average after each epoch, before the epoch is saved: for measurements, not for selection."""
    on_count: Callable[[str, int, int], None] = lambda what, done, total: None
    """Called for work before and after training: its name, images done, and their total."""
    on_note: Callable[[str], None] = lambda text: None
    """Called with a note about the run for the user."""


@dataclass(frozen=True)
class Job:
    """A training task for the loop: settings, data size, and the callables for a step and for validation."""

    config: Schedule
    settings: Mapping[str, Any]
    """JSON values that a run must share to be resumed: the config, the model, the data."""
    images: int
    """Number of training images."""
    step: Callable[[int, Tensor, torch.Generator], Tensor]
    """Updates the weights for the epoch (from 0), the batch's indices and a random generator; returns the loss."""
    validate: Callable[[VisionTransformer], float]
    """Returns the top-1 accuracy, a fraction, by which the epoch is selected."""
    tokens: Callable[[int], int]
    """Returns the number of tokens per image in an epoch, from which its duration is estimated."""
    best_top1: float = Standing().best_top1
    """Validation accuracy that an epoch must exceed to be kept."""


def read_log(folder: Path) -> list[EpochLog]:
    """Return the epochs of a run, in order; empty where none is finished."""
    path = folder / LOG
    return [EpochLog.model_validate_json(line) for line in path.read_text().splitlines()] if path.is_file() else []


def default_device() -> torch.device:
    """Return CUDA where available, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def top1_of(preprocessing: Preprocessing, split: Split, device: torch.device) -> Callable[[VisionTransformer], float]:
    """Return a `Job.validate` that computes a model's top-1 accuracy on a split."""

    def top1(model: VisionTransformer) -> float:
        logits = predict(model, preprocessing, split.images, device=device)
        return float((split.classes.scored(logits).argmax(1) == split.labels).mean())

    return top1


def fit(job: Job, model: VisionTransformer, optimizers: list[Optimizer], folder: Path, progress: Progress) -> None:
    """Train `model` in place, or resume an interrupted run of the same settings in `folder`.

    Writes into `folder`: `model.safetensors` and `config.json` (moving average of the best validation epoch),
    `log.jsonl` (one line per epoch) and `state/` (the state for resuming).

    Raises:
        InputError: `folder` holds something else, or a run of other settings; the loss became NaN; it cannot be written.
    """
    check_run_folder(folder)
    device = next(model.parameters()).device
    average = MovingAverage(model, job.config.ema_decay)
    standing = Standing(best_top1=job.best_top1)
    if (folder / STATE).is_file():
        standing = restore_run(folder, job.settings, model, optimizers, average)
    else:
        save_run(folder, job.settings, standing, model, optimizers, average)
    log = read_log(folder)[: standing.epochs_done]
    for epoch in range(standing.epochs_done, job.config.epochs):
        started = time.perf_counter()
        loss = _train_epoch(job, model, optimizers, average, epoch, progress)
        trained = time.perf_counter()
        averaged = _with_weights(model.config, average.tensors, device)
        top1 = job.validate(averaged)
        best = top1 > standing.best_top1
        entry = EpochLog(
            epoch=epoch + 1, train_loss=loss, validation_top1=top1, best=best, tokens=job.tokens(epoch),
            learning_rate=learning_rate(job.config, epoch + 1), seconds=round(time.perf_counter() - started, 2),
            train_seconds=round(trained - started, 3), device=str(device),
        )  # fmt: skip
        progress.on_average(epoch + 1, averaged)
        standing = Standing(epochs_done=epoch + 1, ema_steps=average.steps, best_top1=max(top1, standing.best_top1))
        if best:
            write_checkpoint(averaged, folder)
        log.append(entry)
        write_atomically(folder / LOG, "".join(line.model_dump_json() + "\n" for line in log))
        save_run(folder, job.settings, standing, model, optimizers, average)
        progress.on_epoch(entry, _remaining_seconds(log, job))


def _train_epoch(
    job: Job, model: VisionTransformer, optimizers: list[Optimizer], average: MovingAverage, epoch: int, progress: Progress
) -> float:
    """Run one pass over the training images in a random order. Returns the mean loss."""
    # Every epoch draws from its own seed, so a resumed run sees what an uninterrupted one would have.
    device, config = next(model.parameters()).device, job.config
    generator = torch.Generator(device).manual_seed(config.seed * 100_003 + epoch)
    order = torch.randperm(job.images, generator=generator, device=device)
    steps = job.images // config.batch_size or 1
    total = torch.zeros((), device=device)
    reported = time.perf_counter()
    model.train()
    for step in range(steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch + step / steps)
        total += job.step(epoch, order[step * config.batch_size : (step + 1) * config.batch_size], generator)
        average.update(model)
        if step == steps - 1 or time.perf_counter() - reported > _REPORT_EVERY_S:
            running = total.item() / (step + 1)
            if not np.isfinite(running):
                raise InputError(f"the training loss became {running} in epoch {epoch + 1}", "lower the learning rate with --lr")
            progress.on_step(epoch * steps + step + 1, config.epochs * steps, running)
            reported = time.perf_counter()
    return total.item() / steps


def _remaining_seconds(log: list[EpochLog], job: Job) -> float:
    """Estimate the remaining seconds from the time per token so far, since epochs may differ in tokens."""
    pace = sum(entry.seconds for entry in log) / sum(entry.tokens for entry in log)
    return pace * sum(job.tokens(epoch) for epoch in range(len(log), job.config.epochs))


def _with_weights(config: ViTConfig, tensors: dict[str, Tensor], device: torch.device) -> VisionTransformer:
    model = VisionTransformer(config).to(device)
    model.load_state_dict(tensors)
    return model.eval()
