"""Shared parts of all training steps: the compute precision, and the update of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer

from vitnla.model.vit import VisionTransformer


@contextmanager
def mixed_precision(device: torch.device, enabled: bool = True) -> Iterator[None]:
    """Use bfloat16 matrix products if `enabled`, and the attention kernel whose backward pass is fast on this device."""
    # On a CPU the backward pass of the fused attention kernel takes several times as long as plain matmuls.
    fused = [SDPBackend.FLASH_ATTENTION] if enabled else [SDPBackend.EFFICIENT_ATTENTION]
    backends = [SDPBackend.MATH] if device.type == "cpu" else [*fused, SDPBackend.MATH]
    with torch.autocast(device.type, torch.bfloat16, enabled=enabled), sdpa_kernel(backends):
        yield


def descend(loss: Tensor, model: VisionTransformer, optimizers: list[Optimizer]) -> None:
    """Update the weights once by the gradient of `loss`, clipped to norm 1."""
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
