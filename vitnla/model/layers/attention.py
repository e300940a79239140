"""The attentions of a block, by kind; those of the slide deck are in `vitnla.model.layers.deck`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitnla.common.registry import Registry
from vitnla.model.config import BlockConfig, ViTConfig
from vitnla.model.layers.linear import balanced_factors, linears


class Attention(nn.Module):
    """Multi-head self-attention whose queries/keys and values may differ in width; subclasses define the scores.

    The scale is 1/sqrt(qk_dim); a method that narrows qk_dim folds the change of scale into W_q.
    """

    def __init__(self, model: ViTConfig, block: BlockConfig) -> None:
        super().__init__()
        config = block.attention
        self.heads, self.qk_dim, self.v_dim = config.heads, config.qk_dim, config.v_dim
        self.dim, self.widths = model.dim, list(config.qkv_widths)
        self.qkv, self.proj = linears(config, model.dim, block.ranks)

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, N, dim] -> [B, N, dim]."""
        out: Tensor = self.proj(self.mix(x))
        return out

    def mix(self, x: Tensor) -> Tensor:
        """Compute the input of `proj`: the heads' weighted values concatenated, [B, N, dim] -> [B, N, heads * v_dim]."""
        *parts, v = self.qkv(x).split(self.widths, dim=-1)
        mixed = self.attend(x, parts, self.by_head(v, self.v_dim))
        joined: Tensor = mixed.transpose(1, 2).reshape(*x.shape[:2], self.heads * self.v_dim)
        return joined

    def attend(self, x: Tensor, parts: list[Tensor], v: Tensor) -> Tensor:
        """Compute weighted values by head from tokens x, the parts of `qkv` before the values, and v [B, heads, N, v_dim]."""
        return F.scaled_dot_product_attention(*self.queries_keys(x, parts), v)

    def queries_keys(self, x: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return queries and keys, each [B, heads, N, qk_dim], from the tokens or from the parts of `qkv`."""
        raise NotImplementedError

    def start_scores(self, near_identity: Callable[[int], Tensor]) -> list[Tensor]:
        """Set the kind's own parameters so that the scores of every head start near the identity, for training from scratch.

        Args:
            near_identity: draws a random matrix [n, n] near the identity.

        Returns:
            The rows [width, dim] of `qkv` before the values.
        """
        raise NotImplementedError

    def by_head(self, part: Tensor, width: int) -> Tensor:
        """Reshape [B, N, heads * width] -> [B, heads, N, width]."""
        return part.reshape(*part.shape[:2], self.heads, width).transpose(1, 2)


ATTENTIONS: Registry[Callable[[ViTConfig, BlockConfig], Attention]] = Registry("attention layer")
"""Attention layers by the kind of the block's attention."""


class StandardAttention(Attention):
    """Scores q k^T."""

    def queries_keys(self, x: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the first two parts of `qkv`."""
        q, k = parts
        return self.by_head(q, self.qk_dim), self.by_head(k, self.qk_dim)

    def start_scores(self, near_identity: Callable[[int], Tensor]) -> list[Tensor]:
        """Initialise W_q^T W_k near the identity, see `Attention.start_scores`."""
        pairs = [balanced_factors(near_identity(self.dim), self.qk_dim) for _ in range(self.heads)]
        return [left.T for left, _ in pairs] + [right.T for _, right in pairs]


ATTENTIONS.add("standard", StandardAttention)


class SymmetricAttention(Attention):
    """Scores q diag(s) q^T: keys k = q * s with `key_scale` s [heads * qk_dim]."""

    def __init__(self, model: ViTConfig, block: BlockConfig) -> None:
        super().__init__(model, block)
        self.key_scale = nn.Parameter(torch.ones(self.heads * self.qk_dim))

    def queries_keys(self, x: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the first part of `qkv`, and the same times s."""
        (q,) = parts
        return self.by_head(q, self.qk_dim), self.by_head(q * self.key_scale, self.qk_dim)

    def start_scores(self, near_identity: Callable[[int], Tensor]) -> list[Tensor]:
        """Return the left factors of matrices near the identity, see `Attention.start_scores`."""
        return [balanced_factors(near_identity(self.dim), self.qk_dim)[0].T for _ in range(self.heads)]


ATTENTIONS.add("symmetric", SymmetricAttention)
