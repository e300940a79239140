"""The slide deck's methods: models whose blocks decompose activations in every forward pass (see `vitnla.model.layers.deck`).

Blocks without parameters of their own reuse a trained model's weights. Where they replace Q K^T by X X^T, W_q and W_k
are dropped, so a model has to be trained with such blocks: `vitdeploy train --method NAME`.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.linalg.low_rank import truncated_svd
from vitnla.linalg.symmetric import nearest_psd_factor
from vitnla.methods.online.config import CholeskyOnlineConfig, CholeskySymmetricConfig, SvdFullConfig, TruncationConfig
from vitnla.methods.parts.heads import standard_heads
from vitnla.methods.parts.model_edit import BlockChange, LowRank, dense_linear, with_blocks, with_low_rank
from vitnla.methods.parts.report_rows import layer_row
from vitnla.methods.registry import METHODS, Decomposition, Method
from vitnla.model.config import Online, StoredFactor, Truncation
from vitnla.model.layers.deck import pack_triangles
from vitnla.model.vit import VisionTransformer


def apply_cholesky(model: VisionTransformer, statistics: Statistics | None, config: CholeskyOnlineConfig) -> Decomposition:
    """Factor A = x x^T + epsilon I in every block as well; logits are unchanged.

    Raises:
        InputError: a block has an online decomposition already.
    """
    return _with_online(model, StoredFactor(epsilon=config.epsilon))


def apply_svd(model: VisionTransformer, statistics: Statistics | None, config: TruncationConfig) -> Decomposition:
    """Truncate the attention output of every block.

    Raises:
        InputError: `rank` is above the full rank, the lesser of tokens and dim, or a block has an online decomposition already.
    """
    return _with_online(model, Truncation(kind="svd", rank=_rank(config, min(model.config.tokens, model.config.dim))))


def apply_pca(model: VisionTransformer, statistics: Statistics | None, config: TruncationConfig) -> Decomposition:
    """Replace the scores by a PCA of x x^T per image; W_q and W_k are dropped.

    Raises:
        InputError: `rank` is above the number of tokens, or the attention is not the standard one.
    """
    return _gram_attention(model, Truncation(kind="pca", rank=_rank(config, model.config.tokens)))


def apply_tensor(model: VisionTransformer, statistics: Statistics | None, config: TruncationConfig) -> Decomposition:
    """Replace the scores by a truncated SVD of all x x^T of a batch; W_q and W_k are dropped. Raises as `apply_pca`."""
    return _gram_attention(model, Truncation(kind="tensor", rank=_rank(config, model.config.tokens)))


def apply_svd_full(model: VisionTransformer, statistics: Statistics | None, config: SvdFullConfig) -> Decomposition:
    """Compute every linear as Y = X V S U^T + b with all singular values: exact, and more work than Y = X W^T + b.

    Raises:
        InputError: the model is decomposed already, or a weight is not finite.
    """
    linears = {key: dense_linear(model, key) for key in model.linear_names()}
    factors = {key: truncated_svd(linear.weight, min(linear.weight.shape)) for key, linear in linears.items()}
    return _decomposition(with_low_rank(model, {key: LowRank(factors[key], linear.bias) for key, linear in linears.items()}))


def apply_cholesky_symmetric(
    model: VisionTransformer, statistics: Statistics | None, config: CholeskySymmetricConfig
) -> Decomposition:
    """Project each head's W_q^T W_k onto the form X_h L L^T X_h^T: the PSD matrix nearest to its block of the head's channels.

    This loses nearly all of a trained model's accuracy; it is an initialisation for training.

    Raises:
        InputError: the attention is not the standard one, or its heads do not split the channels evenly.
    """
    changes, errors = {}, []
    for index, block in enumerate(model.config.blocks):
        if block.heads * block.qk_dim != model.config.dim:
            hint = "apply it to a model whose heads were not narrowed"
            raise InputError(
                f"block {index}: expected {block.heads} heads that split dim {model.config.dim}, got qk_dim {block.qk_dim}", hint
            )
        heads = standard_heads(model, index)
        wanted = heads.scores
        channels = [slice(start, start + block.qk_dim) for start in range(0, model.config.dim, block.qk_dim)]
        factors = torch.stack([nearest_psd_factor(scores[own, own]) for scores, own in zip(wanted, channels, strict=True)])
        found = torch.zeros_like(wanted)
        for number, own in enumerate(channels):
            found[number, own, own] = factors[number] @ factors[number].T
        triangles = {"attn.queries.packed": pack_triangles(factors)}
        changes[index] = BlockChange({"qkv": heads.values}, attention="cholesky", parameters=triangles)
        errors.append(_distance(found, wanted))
    return _decomposition(with_blocks(model, changes), errors)


def _with_online(model: VisionTransformer, online: Online) -> Decomposition:
    """Return the model with `online` in every block and all weights unchanged."""
    for index, block in enumerate(model.config.blocks):
        if block.online is not None:
            hint = "apply it to a model without one"
            raise InputError(f"block {index}: expected no online decomposition, got '{block.online.kind}'", hint)
    return _decomposition(with_blocks(model, dict.fromkeys(range(len(model.blocks)), BlockChange({}, online=online))))


def _gram_attention(model: VisionTransformer, online: Truncation) -> Decomposition:
    """Take scores from X X^T. The rows' error is that of I / sqrt(dim) for W_q^T W_k / sqrt(d_k), before any truncation."""
    changes, errors = {}, []
    for index, block in enumerate(model.config.blocks):
        heads = standard_heads(model, index)
        identity = math.sqrt(block.qk_dim / model.config.dim) * torch.eye(model.config.dim, dtype=torch.float64)
        errors.append(_distance(identity.expand_as(heads.scores), heads.scores))
        changes[index] = BlockChange({"qkv": heads.values}, attention="gram", online=online)
    return _decomposition(with_blocks(model, changes), errors)


def _distance(found: Tensor, wanted: Tensor) -> float:
    """Return the relative Frobenius error over all heads."""
    return float((found - wanted).norm() / wanted.norm().clamp(min=sys.float_info.min))


def _decomposition(model: VisionTransformer, score_errors: list[float] | None = None) -> Decomposition:
    """Return the model with rows of error 0, except that `qkv` has the error of its scores where they were replaced."""
    rows = {key: layer_row(model.config, *key) for key in model.linear_names()}
    for block, error in enumerate(score_errors or ()):
        rows[block, "qkv"] = layer_row(model.config, block, "qkv", error, max(0.0, 1 - error**2))
    return Decomposition(model, tuple(rows.values()))


def _rank(config: TruncationConfig, full: int) -> int:
    if config.rank is not None and config.rank > full:
        raise InputError(f"rank: expected 1 to {full}, got {config.rank}", "the full rank is exact")
    return config.rank or -(-full // 2)


def _never(config: Record) -> bool:
    return False


for _method in (
    Method("cholesky-online", "online", "The deck's A = x x^T + eI = L L^T beside every block", CholeskyOnlineConfig, apply_cholesky, _never),
    Method("pca-online", "online", "The deck's attention from a PCA of x x^T", TruncationConfig, apply_pca, _never),
    Method("svd-online", "online", "The deck's truncated SVD of the attention output", TruncationConfig, apply_svd, _never),
    Method("tensor-online", "online", "The deck's attention from a truncated x x^T that a batch shares", TruncationConfig, apply_tensor, _never),
    Method("svd-full", "online", "The deck's Y = X V S U^T + b at full rank: exact, and slower", SvdFullConfig, apply_svd_full, _never),
    Method(
        "cholesky-symmetric", "trained", "The deck's attention with W_QK = L L^T per head; train with it", CholeskySymmetricConfig,
        apply_cholesky_symmetric, _never,
    ),
):  # fmt: skip
    METHODS.add(_method.name, _method)
