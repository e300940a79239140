"""The weights of an attention whose scores are q^T k, head by head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.methods.parts.model_edit import Dense, dense_linear
from vitnla.methods.parts.requirements import require_permission
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
    """Return the heads of a block.

    Raises:
        InputError: the kind of its attention or of the model's positions does not allow its scores to be changed, or qkv is
            low-rank or not finite.
    """
    config = model.config.blocks[block]
    expected = "scores that depend on W_q and W_k alone"
    require_permission(model.config.can_narrow_scores(block), f"block {block}", expected)
    qkv = dense_linear(model, (block, "qkv"))
    if not (torch.isfinite(qkv.weight).all() and torch.isfinite(qkv.bias).all()):
        raise InputError(f"block {block} qkv: expected finite weights, got NaN or infinity", "train again")
    widths = list(config.attention.qkv_widths)
    weights, biases = (torch.split(part.detach(), widths) for part in (qkv.weight, qkv.bias))
    by_head = (config.heads, config.qk_dim)
    q, k, q_bias, k_bias = (part.double().reshape(*by_head, *part.shape[1:]) for part in (*weights[:2], *biases[:2]))
    return Heads(q, k, q_bias, k_bias, Dense(weights[2], biases[2]))
