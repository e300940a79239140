"""The training loop: one epoch at a time, each resumable, the best one kept by validation accuracy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record
from vitnla.data.dataset import Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.checkpoint import read_tensors, write_checkpoint
from vitnla.model.config import ViTConfig
from vitnla.model.predict import predict
from vitnla.model.vit import VisionTransformer
from vitnla.training.augment import augment, drop_tokens
from vitnla.training.config import TrainConfig
from vitnla.training.initialise import new_model
from vitnla.training.optimizer import MovingAverage, learning_rate, make_optimizers, optimizer_tensors, restore_optimizers


class EpochLog(Record):
    """One line of `log.jsonl`. Accuracies are fractions, of the moving average on the validation split."""

    epoch: int
    train_loss: float
    validation_top1: float
    best: bool
    learning_rate: float
    tokens: int
    seconds: float
    device: str


class RunState(Record):
    """Where a run stands, beside the tensors of `state.safetensors`."""

    train: TrainConfig
    model: ViTConfig
    data: str
    epochs_done: int
    ema_steps: int
    best_top1: float


@dataclass
class Progress:
    """What the caller may show while training runs."""

    on_step: Callable[[int, int, float], None] = lambda done, total, loss: None
    on_epoch: Callable[[EpochLog, float], None] = lambda log, remaining_s: None


def read_log(folder: Path) -> list[EpochLog]:
    """The epochs of a run, in order."""
    return [EpochLog.model_validate_json(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    model_config: ViTConfig, config: TrainConfig, preprocessing: Preprocessing, training: Split, validation: Split,
    folder: Path, progress: Progress | None = None, device: torch.device | None = None,
) -> Path:  # fmt: skip
    """Train a ViT from scratch, or go on where an interrupted run of the same settings in `folder` stopped.

    Writes into `folder`: `model.safetensors` and `config.json` (moving average of the best validation epoch),
    `log.jsonl` (one line per epoch) and `state/` (what a resumed run needs).

    Returns:
        `folder`, a checkpoint.

    Raises:
        InputError: `folder` holds a run of other settings, the loss became NaN, or the folder cannot be written.
    """
    progress = progress or Progress()
    device = device or default_device()
    model = new_model(model_config, config.seed).to(device)
    optimizers = make_optimizers(model, config)
    average = MovingAverage(model, config.ema_decay)
    state = RunState(
        train=config, model=model_config, data=training.fingerprint(), epochs_done=0, ema_steps=0, best_top1=-1.0,
    )  # fmt: skip
    if (folder / "state").is_dir():
        state = _resume(folder, state, model, optimizers, average)
    images = torch.from_numpy(preprocessing(training.images)).to(device)
    labels = torch.from_numpy(training.labels).to(device)
    log = folder / "log.jsonl"
    lines = log.read_text().splitlines()[: state.epochs_done] if log.is_file() and state.epochs_done else []
    for epoch in range(state.epochs_done, config.epochs):
        started = time.perf_counter()
        keep = _share(config, epoch)
        loss = _train_epoch(model, optimizers, average, images, labels, config, epoch, keep, progress)
        averaged = _with_weights(model_config, average.tensors, device)
        top1 = float((predict(averaged, preprocessing, validation.images, device=device).argmax(1) == validation.labels).mean())
        best = top1 > state.best_top1
        entry = EpochLog(
            epoch=epoch + 1, train_loss=loss, validation_top1=top1, best=best, learning_rate=learning_rate(config, epoch + 1),
            tokens=model_config.prefix_tokens + max(1, round(model_config.patches * keep)),
            seconds=round(time.perf_counter() - started, 2), device=str(device),
        )  # fmt: skip
        state = state.model_copy(
            update={"epochs_done": epoch + 1, "ema_steps": average.steps, "best_top1": max(top1, state.best_top1)}
        )
        if best:
            write_checkpoint(averaged, folder)
        lines.append(entry.model_dump_json())
        write_atomically(log, "\n".join(lines) + "\n")
        _save_state(folder, state, model, optimizers, average)
        progress.on_epoch(entry, _remaining_seconds(lines, config))
    return folder


def _train_epoch(
    model: VisionTransformer, optimizers: list[torch.optim.Optimizer], average: MovingAverage, images: Tensor, labels: Tensor,
    config: TrainConfig, epoch: int, keep: float, progress: Progress,
) -> float:  # fmt: skip
    # Every epoch draws from its own seed, so a resumed run sees what an uninterrupted one would have.
    generator = torch.Generator(images.device).manual_seed(config.seed * 100_003 + epoch)
    order = torch.randperm(len(images), generator=generator, device=images.device)
    steps = len(images) // config.batch_size or 1
    total = torch.zeros((), device=images.device)
    prefix = model.config.prefix_tokens
    model.train()
    for step in range(steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, epoch + step / steps)
        batch = order[step * config.batch_size : (step + 1) * config.batch_size]
        # On a CPU the backward pass of the fused attention kernel takes several times as long as plain matmuls.
        backend = [SDPBackend.MATH] if images.device.type == "cpu" else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]
        with torch.autocast(images.device.type, torch.bfloat16), sdpa_kernel(backend):
            tokens = drop_tokens(model.embed(augment(images[batch], config, generator)), prefix, keep, generator)
            logits = model.classify(model.encode(tokens))
            loss = F.cross_entropy(logits.float(), labels[batch], label_smoothing=config.label_smoothing)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        average.update(model)
        total += loss.detach()
        if step % 20 == 19 or step == steps - 1:
            running = total.item() / (step + 1)
            if not np.isfinite(running):
                raise InputError(f"the training loss became {running} in epoch {epoch + 1}", "lower the learning rate with --lr")
            progress.on_step(epoch * steps + step + 1, config.epochs * steps, running)
    return total.item() / steps


def _remaining_seconds(lines: list[str], config: TrainConfig) -> float:
    """Estimate from the pace per token of the epochs so far: the last epochs see more tokens and take longer."""
    log = [EpochLog.model_validate_json(line) for line in lines]
    pace = sum(entry.seconds for entry in log) / sum(_share(config, entry.epoch - 1) for entry in log)
    return pace * sum(_share(config, epoch) for epoch in range(len(log), config.epochs))


def _share(config: TrainConfig, epoch: int) -> float:
    """Share of the patch tokens that an epoch keeps."""
    return config.token_keep if epoch < config.epochs - config.full_token_epochs else 1.0


def _with_weights(config: ViTConfig, tensors: dict[str, Tensor], device: torch.device) -> VisionTransformer:
    model = VisionTransformer(config).to(device)
    model.load_state_dict(tensors)
    return model.eval()


def _save_state(
    folder: Path, state: RunState, model: VisionTransformer, optimizers: list[torch.optim.Optimizer], average: MovingAverage
) -> None:
    tensors = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor.cpu().contiguous() for name, tensor in average.tensors.items()}
    tensors |= optimizer_tensors(optimizers)
    # One file holds both the tensors and the JSON, so that a kill between two writes cannot leave a mismatched pair.
    write_atomically(folder / "state" / "state.safetensors", save(tensors, {"state": state.model_dump_json()}))


def _resume(
    folder: Path, fresh: RunState, model: VisionTransformer, optimizers: list[torch.optim.Optimizer], average: MovingAverage
) -> RunState:
    path = folder / "state" / "state.safetensors"
    tensors = read_tensors(path)
    state = RunState.model_validate_json(_metadata(path)["state"])
    for field in ("train", "model", "data"):
        if getattr(state, field) != getattr(fresh, field):
            raise InputError(
                f"{folder} holds a run with other settings ({field} differs)",
                "give the same settings to resume, or another folder with -o",
            )
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    device = next(model.parameters()).device
    average.tensors = {name[4:]: tensor.to(device) for name, tensor in tensors.items() if name.startswith("ema.")}
    average.steps = state.ema_steps
    restore_optimizers(optimizers, tensors)
    return state


def _metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
