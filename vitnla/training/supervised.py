"""Training from scratch on labels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from vitnla.common.errors import InputError
from vitnla.data.dataset import Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer
from vitnla.training.augment import augment, drop_tokens
from vitnla.training.config import TrainConfig
from vitnla.training.initialise import new_model
from vitnla.training.loop import Job, Progress, default_device, fit, top1_of
from vitnla.training.optimizer import make_optimizers
from vitnla.training.step import descend, mixed_precision


def train(
    model_config: ViTConfig, config: TrainConfig, preprocessing: Preprocessing, training: Split, validation: Split,
    folder: Path, progress: Progress | None = None, device: torch.device | None = None,
) -> Path:  # fmt: skip
    """Train a ViT from scratch, or resume an interrupted run of the same settings in `folder`; see `loop.fit`.

    Returns:
        `folder`, a checkpoint.

    Raises:
        InputError: `token_keep` is below 1 and the model's positions do not allow tokens to be dropped, or as `loop.fit`.
    """
    permission = model_config.position.can_drop_tokens
    if config.token_keep < 1 and not permission:
        label = model_config.position.label
        raise InputError(
            f"training: expected token_keep 1 with {label}, got {config.token_keep}: {permission.refusal}", "set it to 1"
        )
    device = device or default_device()
    model = new_model(model_config, config.seed).to(device)
    optimizers = make_optimizers(model, config)
    images = torch.from_numpy(preprocessing(training.images)).to(device)
    labels = torch.from_numpy(training.labels).to(device)

    def step(epoch: int, batch: Tensor, generator: torch.Generator) -> Tensor:
        return train_step(model, optimizers, images[batch], labels[batch], config, config.share(epoch), generator)

    job = Job(
        config=config,
        settings={
            "train": config.model_dump(mode="json"), "model": model_config.model_dump(mode="json"), "data": training.fingerprint(),
        },
        images=len(images), step=step, validate=top1_of(preprocessing, validation, device),
        tokens=lambda epoch: model_config.prefix_tokens + max(1, round(model_config.patches * config.share(epoch))),
    )  # fmt: skip
    fit(job, model, optimizers, folder, progress or Progress())
    return folder


def train_step(
    model: VisionTransformer, optimizers: list[Optimizer], images: Tensor, labels: Tensor,
    config: TrainConfig, keep: float, generator: torch.Generator,
) -> Tensor:  # fmt: skip
    """Augment a batch [B, C, H, W], keep that share of its tokens, and update the weights once. Returns the loss, detached."""
    with mixed_precision(images.device):
        tokens = model.embed(augment(images, config, generator))
        logits = model.classify(model.encode(drop_tokens(tokens, model.config.prefix_tokens, keep, generator)))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
    descend(loss, model, optimizers)
    return loss.detach()
