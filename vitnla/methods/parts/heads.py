"""The weights of a standard attention, head by head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.methods.parts.model_edit import Dense, dense_linear
from vitnla.model.vit import VisionTransformer


@dataclass(frozen=True)
class Heads:
    """Queries and keys by head in float64, weights [heads, qk_dim, dim] and biases [heads, qk_dim]; the values as one linear."""

    q: Tensor
    k: Tensor
    q_bias: Tensor
    k_bias: Tensor
    values: Dense

    @property
    def scores(self) -> Tensor:
        """W_q^T W_k of each head, [heads, dim, dim]: x^T M y is the score of key y for query x, biases and scale apart."""
        return self.q.mT @ self.k


def standard_heads(model: VisionTransformer, block: int) -> Heads:
    """The heads of a block.

    Raises:
        InputError: its attention is not the standard one, or qkv is low-rank or not finite.
    """
    config = model.config.blocks[block]
    if config.attention != "standard":
        hint = "decompose the dense model instead"
        raise InputError(f"block {block}: expected standard attention, got '{config.attention}'", hint)
    qkv = dense_linear(model, (block, "qkv"))
    if not (torch.isfinite(qkv.weight).all() and torch.isfinite(qkv.bias).all()):
        raise InputError(f"block {block} qkv: expected finite weights, got NaN or infinity", "train again")
    widths = [config.heads * config.qk_dim] * 2 + [config.heads * config.v_dim]
    weights, biases = (torch.split(part.detach(), widths) for part in (qkv.weight, qkv.bias))
    by_head = (config.heads, config.qk_dim)
    q, k, q_bias, k_bias = (part.double().reshape(*by_head, *part.shape[1:]) for part in (*weights[:2], *biases[:2]))
    return Heads(q, k, q_bias, k_bias, Dense(weights[2], biases[2]))
