"""Pooling by attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitnla.model.config import Activation, AttentionPoolConfig
from vitnla.model.layers.mlp import activation


class AttentionPool(nn.Module):
    """p = proj(attention of a learned query to the tokens), then p + fc2(act(fc1(norm(p)))).

    The query is the product of the source's latent vector and its query projection, which do not depend on the image.
    """

    def __init__(self, dim: int, config: AttentionPoolConfig, act: Activation) -> None:
        super().__init__()
        self.heads, self.act = config.heads, act
        self.query = nn.Parameter(torch.zeros(config.dim))
        self.kv = nn.Linear(dim, 2 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.fc1 = nn.Linear(config.dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, N, stream] -> [B, dim]."""
        keys, values = (self._by_head(part) for part in self.kv(x).chunk(2, dim=-1))
        query = self._by_head(self.query.expand(x.shape[0], 1, -1))
        mixed = F.scaled_dot_product_attention(query, keys, values)
        pooled: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape[0], -1))
        out: Tensor = pooled + self.fc2(activation(self.act, self.fc1(self.norm(pooled))))
        return out

    def _by_head(self, part: Tensor) -> Tensor:
        """Reshape [B, N, dim] -> [B, heads, N, dim / heads]."""
        return part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2)
