"""Narrower attention heads: the principal directions of every head's scores and outputs, from activations.

Queries and keys act only through their products, so per head the least loss of E(qT k)^2 is wanted, with q = W_q x + b_q and
k = W_k x about its mean: the truncated SVD of [W_q b_q]T W_k, whitened by the moments of [x; 1] and of x. Values act only
through W_o W_v, so per head the outputs W_o v are truncated to their principal components. The key bias cancels in softmax,
and the value bias passes into proj's bias, b_o' = b_o + W_o b_v; both exactly.

Sources: `vitnla.linalg.score_basis` for the algebra. Compressing the pairs (W_q, W_k) and (W_v, W_o) head by head against their
joint outputs is also the way of Lin et al. 2024 (MoDeGPT), who choose columns for the first pair and take an SVD for the other.
"""

from __future__ import annotations

from vitnla.allocation import WidthOptions
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.methods.budget_settings import widths_within
from vitnla.methods.parts.narrow_attention import NarrowAttention, narrow_attention
from vitnla.methods.parts.narrowed import narrowed_model
from vitnla.methods.parts.requirements import require_statistics
from vitnla.methods.pca.config import PcaConfig
from vitnla.methods.registry import METHODS, Decomposition, Method
from vitnla.model.config import ViTConfig
from vitnla.model.cost import encoder_macs
from vitnla.model.vit import VisionTransformer


def apply(model: VisionTransformer, statistics: Statistics | None, config: PcaConfig) -> Decomposition:
    """Narrow the heads of every block; the MLPs stay as they are.

    Raises:
        InputError: there are no statistics, an attention is low-rank or of a kind that does not allow it, a number is not
            finite, a width is above that of a head, or the target cannot be attained.
    """
    statistics = require_statistics("pca", statistics)
    blocks = [narrow_attention(model, block, statistics) for block in range(len(model.config.blocks))]
    widths = _widths(blocks, model.config, config)
    return narrowed_model(model, {index: block.at(*pair) for index, (block, pair) in enumerate(zip(blocks, widths, strict=True))})


def _widths(blocks: list[NarrowAttention], shape: ViTConfig, config: PcaConfig) -> list[tuple[int, int]]:
    """Return (qk_dim, v_dim) of every block."""
    if config.target_macs is None:
        return [
            (_given("qk_dim", config.qk_dim, block.qk_dim), _given("v_dim", config.v_dim, block.v_dim)) for block in shape.blocks
        ]
    layers = [
        WidthOptions(shape.tokens * block.macs_per_unit(shape.dim)[name], losses.numpy())
        for block, curves in zip(shape.blocks, blocks, strict=True)
        for name, losses in (("qk_dim", curves.qk_losses), ("v_dim", curves.v_losses))
    ]
    widths = widths_within(layers, encoder_macs(shape, shape).dense, config.target_macs, config.allocation, config.width_multiple)
    return list(zip(widths[::2], widths[1::2], strict=True))


def _given(name: str, width: int | None, full: int) -> int:
    if width is not None and width > full:
        raise InputError(f"{name}: expected at most {full}, the width of a head, got {width}", "choose a smaller one")
    return full if width is None else width


METHODS.add(
    "pca",
    Method(
        "pca", "deployable", "Narrower heads: principal directions of scores and values", PcaConfig, apply, lambda config: True
    ),
)
