"""The norms of a residual stream."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitnla.model.config import NormKind


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019, eq. 4), without gains: the linear that follows holds them."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., dim] -> [..., dim]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def norm(kind: NormKind, dim: int, eps: float) -> nn.Module:
    """Return the norm of a residual stream by its name in the config."""
    return nn.LayerNorm(dim, eps=eps) if kind == "layer" else RMSNorm(eps)
