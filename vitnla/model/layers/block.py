"""The encoder block, with the attention and MLP named in its config."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitnla.model.config import BlockConfig, StoredFactor, Truncation, ViTConfig
from vitnla.model.layers.attention import ATTENTIONS
from vitnla.model.layers.deck import StoredCholesky, TruncatedOutput
from vitnla.model.layers.mlp import MLPS
from vitnla.model.layers.norm import norm


class LayerScale(nn.Module):
    """Per-channel gain on a residual branch (Touvron et al. 2021, "Going deeper with image transformers", eq. 1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., dim] -> [..., dim]."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm encoder block: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x))).

    An online method stores a factor of norm1(x) or truncates attn(...); otherwise both are identities.
    """

    def __init__(self, model: ViTConfig, config: BlockConfig) -> None:
        super().__init__()
        dim, online = model.dim, config.online
        self.norm1 = norm(model.norm, dim, model.norm_eps)
        self.store = StoredCholesky(online.epsilon) if isinstance(online, StoredFactor) else nn.Identity()
        self.attn = ATTENTIONS[config.attention.kind](model, config)
        self.truncate = TruncatedOutput(online) if isinstance(online, Truncation) and online.site == "output" else nn.Identity()
        self.ls1 = LayerScale(dim) if model.layer_scale else nn.Identity()
        self.norm2 = norm(model.norm, dim, model.norm_eps)
        self.mlp = MLPS[config.mlp.kind](model, config)
        self.ls2 = LayerScale(dim) if model.layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, N, dim] -> [B, N, dim]."""
        x = x + self.ls1(self.truncate(self.attn(self.store(self.norm1(x)))))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out
