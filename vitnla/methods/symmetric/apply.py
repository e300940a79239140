"""Symmetric attention: one projection instead of two, q = L^T x + c and k = q * s, from a trained model's W_q and W_k.

Each head's W_q^T W_k becomes L diag(s) L^T, the best of this form for the calibration tokens. Its antisymmetric
part cannot be represented, so this is destructive: fine-tune afterwards.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.linalg.low_rank import output_error
from vitnla.linalg.symmetric import SignedForm, signed_form
from vitnla.methods.parts.heads import Heads, standard_heads
from vitnla.methods.parts.model_edit import BlockChange, Dense, with_blocks
from vitnla.methods.parts.report_rows import layer_row
from vitnla.methods.registry import METHODS, Decomposition, Method
from vitnla.methods.symmetric.config import SymmetricConfig
from vitnla.model.vit import VisionTransformer


def apply(model: VisionTransformer, statistics: Statistics | None, config: SymmetricConfig) -> Decomposition:
    """Make every block's attention symmetric; the row of `qkv` reports the error of the scores.

    Raises:
        InputError: statistics are needed and there are none, or a block's attention is not standard and dense.
    """
    changes, errors = {}, {}
    for index in range(len(model.blocks)):
        heads = standard_heads(model, index)
        mean, covariance = _moments(model, statistics, config, index)
        changes[index], errors[index] = _symmetric(heads, mean, covariance, psd=config.signs == "psd")
    symmetric = with_blocks(model, changes)
    rows = {key: layer_row(symmetric.config, *key) for key in symmetric.linear_names()}
    for index, error in errors.items():
        rows[index, "qkv"] = layer_row(symmetric.config, index, "qkv", error, max(0.0, 1 - error**2))
    return Decomposition(symmetric, tuple(rows.values()))


def _moments(
    model: VisionTransformer, statistics: Statistics | None, config: SymmetricConfig, block: int
) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of the input of a block's qkv; zero and the identity where only the weights count."""
    if config.weighting == "none":
        return torch.zeros(model.config.dim, dtype=torch.float64), torch.eye(model.config.dim, dtype=torch.float64)
    if statistics is None:
        hint = "pass calibration data with --data, or --set weighting=none"
        raise InputError("symmetric: expected calibration statistics, got none", hint)
    moments = statistics.linears[block, "qkv"]
    return moments.mean, moments.covariance


def _symmetric(heads: Heads, mean: Tensor, covariance: Tensor, *, psd: bool) -> tuple[BlockChange, float]:
    """Return the new attention of a block, and the error of its scores relative to their deviations.

    Softmax ignores what all keys of a query share, so with z = x - mean of zero mean, what counts of a score is
    z_i^T M z_j + w^T z_j with w = W_k^T (W_q mean + b_q). The symmetric form has z_i^T L D L^T z_j + (L D o)^T z_j, D = diag(s), for
    queries q = L^T z + o. L and s are the best for M; given them, o is fitted to w by least squares.
    """
    forms, offsets, error, energy = [], [], 0.0, 0.0
    pulls = torch.einsum("hkd,hk->hd", heads.k, heads.q @ mean + heads.q_bias)
    for scores, pull in zip(heads.scores, pulls, strict=True):
        form = signed_form(scores, covariance, heads.q.shape[1], psd=psd)
        offset = _offset(form, covariance, pull)
        error += _energy(scores - form.product, pull - form.factor @ (form.signs * offset), covariance)
        energy += _energy(scores, pull, covariance)
        forms.append(form)
        offsets.append(offset)
    factors = torch.cat([form.factor.T for form in forms])
    bias = torch.cat(offsets) - factors @ mean
    signs = torch.ones_like(bias) if psd else torch.cat([form.signs for form in forms])
    values = heads.values
    qv = Dense(torch.cat([factors.to(values.weight), values.weight]), torch.cat([bias.to(values.bias), values.bias]))
    change = BlockChange({"qkv": qv}, attention="symmetric", parameters={"attn.key_scale": signs})
    return change, math.sqrt(error / max(energy, sys.float_info.min))


def _offset(form: SignedForm[Tensor], covariance: Tensor, pull: Tensor) -> Tensor:
    """Return the o that minimises (w - L D o)^T C (w - L D o): L^T C L is diagonal, so each coordinate is fitted by itself."""
    norms = ((form.factor.T @ covariance) * form.factor.T).sum(1)
    fitted = form.signs * (form.factor.T @ covariance @ pull)
    return torch.where(norms > 0, fitted / norms, 0.0)


def _energy(scores: Tensor, pull: Tensor, covariance: Tensor) -> float:
    """Return E(z_i^T M z_j + w^T z_j)^2 for independent z_i and z_j of zero mean."""
    return float(((covariance @ scores @ covariance) * scores).sum()) + output_error(pull[None], covariance)


def _needs_statistics(config: SymmetricConfig) -> bool:
    return config.weighting != "none"


METHODS.add(
    "symmetric",
    Method("symmetric", "trained", "Symmetric attention q, k = q * s; fine-tune it", SymmetricConfig, apply, _needs_statistics),
)
