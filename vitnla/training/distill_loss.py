"""Distillation losses: the logits, and where shapes match the output of every block."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer
from vitnla.training.config import DistillConfig
from vitnla.training.step import descend, mixed_precision


@dataclass(frozen=True)
class Answer:
    """Output of a model for a batch: logits [B, classes], and the output of every block, each [B, N, dim]."""

    logits: Tensor
    blocks: tuple[Tensor, ...]


def answer(model: VisionTransformer, images: Tensor) -> Answer:
    """Run the forward pass on images [B, C, H, W]; return the logits and all block outputs."""
    tokens = model.embed(images)
    outputs = []
    for block in model.blocks:
        tokens = block(tokens)
        outputs.append(tokens)
    return Answer(model.classify(tokens), tuple(outputs))


def logit_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T² KL(softmax(teacher / T) || softmax(student / T)), mean over images, of logits [B, classes].

    Source: Hinton et al. 2015, section 2.
    """
    wanted, given = ((logits.float() / temperature).log_softmax(-1) for logits in (teacher, student))
    return temperature**2 * F.kl_div(given, wanted, reduction="batchmean", log_target=True)


def block_loss(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the mean over blocks of ||s - t||² / ||t - mean t||², outputs [B, N, dim]: 0 is exact, 1 equals the mean token.

    The normalisation gives deep blocks, whose outputs are larger, the same weight as the first ones.
    """
    shares = []
    for given, wanted in zip(student, teacher, strict=True):
        spread = (wanted - wanted.mean((0, 1))).square().mean()
        shares.append((given - wanted).square().mean() / spread.clamp_min(sys.float_info.min))
    return torch.stack(shares).mean()


def block_difference(student: ViTConfig, teacher: ViTConfig) -> str | None:
    """Return the reason why the block outputs of two models cannot be compared; `None` where they can."""
    kinds = {
        "depth": (len(student.blocks), len(teacher.blocks)),
        "width": (student.dim, teacher.dim),
        "number of tokens": (student.tokens, teacher.tokens),
        "norm": (student.norm, teacher.norm),  # another norm was folded, and the stream rotated with it
    }
    for what, (given, wanted) in kinds.items():
        if given != wanted:
            return f"the student's {what} is {given}, the teacher's {wanted}"
    return None


def distill_step(
    student: VisionTransformer, teacher: VisionTransformer, optimizers: list[Optimizer], images: Tensor, config: DistillConfig
) -> Tensor:
    """Update the student once on a batch [B, C, H, W]; the teacher does not change. Returns the loss, detached."""
    compared = config.block_weight > 0 and block_difference(student.config, teacher.config) is None
    with mixed_precision(images.device, config.precision == "bf16"):
        with torch.no_grad():
            wanted = answer(teacher, images)
        given = answer(student, images)
        loss = logit_loss(given.logits, wanted.logits, config.temperature)
        if compared:
            loss = loss + config.block_weight * block_loss(given.blocks, wanted.blocks)
    descend(loss, student, optimizers)
    return loss.detach()
