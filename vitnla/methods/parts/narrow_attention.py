"""Narrower attention heads: each keeps the principal directions of its scores and outputs; no GEMM is added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitnla.calibration.statistics import LinearStatistics, Statistics
from vitnla.linalg.low_rank import OutputBasis, tail_energy, whitened_basis
from vitnla.linalg.score_basis import ScoreBasis, score_basis
from vitnla.methods.parts.heads import Heads, standard_heads
from vitnla.methods.parts.model_edit import BlockChange, Dense, dense_linear
from vitnla.methods.parts.narrowed import UNCHANGED, Narrowed
from vitnla.methods.parts.report_rows import relative_error
from vitnla.methods.parts.requirements import require_permission
from vitnla.model.config import LinearName
from vitnla.model.vit import VisionTransformer


@dataclass(frozen=True, eq=False)
class NarrowAttention:
    """One block's attention at every width of its queries and keys, and of its values.

    Args:
        heads: the dense heads.
        proj: the linear after them, and `mixed`, what calibration saw at its input.
        scores: per head, the directions of q and k.
        values: per head, the directions of its output into the residual stream.
        score_errors: [qk_dim + 1] float64, E(error of a score)^2 before the 1/sqrt(qk_dim), summed over heads, at every width.
        value_errors: [v_dim + 1] float64, E|error of proj's output|^2 at every width, assuming uncorrelated heads.
        score_sensitivity: effect of one unit of `score_errors` on the predictions (see `narrow_attention`).
    """

    heads: Heads
    proj: nn.Linear
    mixed: LinearStatistics
    scores: tuple[ScoreBasis[Tensor], ...]
    values: tuple[OutputBasis[Tensor], ...]
    score_errors: Tensor
    value_errors: Tensor
    score_sensitivity: float

    @property
    def qk_losses(self) -> Tensor:
        """Loss at every width, [qk_dim + 1] float64: `score_errors` in the unit that all linears share."""
        return self.score_sensitivity * self.score_errors

    @property
    def v_losses(self) -> Tensor:
        """Loss at every width, [v_dim + 1] float64: `value_errors` in the unit that all linears share."""
        return self.mixed.sensitivity * self.value_errors

    def at(self, qk_dim: int, v_dim: int) -> Narrowed:
        """Return the attention with heads of these widths, each 1 ... its old one; a part that keeps its width is unchanged.

        The error and the energy of qkv are those of the scores about their mean over the keys; those of proj are of its
        output, values included, assuming exact scores.
        """
        linears, errors, retained = dict[LinearName, Dense](), dict[LinearName, float](), dict[LinearName, float]()
        if qk_dim < len(self.score_errors) - 1:
            queries_keys = narrow_scores(self.heads, self.scores, qk_dim)
            share = _share(self.score_errors, qk_dim)
            errors["qkv"], retained["qkv"] = share**0.5, 1 - share
        else:
            queries_keys = [Dense(*pair) for pair in ((self.heads.q, self.heads.q_bias), (self.heads.k, self.heads.k_bias))]
        values = self.heads.values
        if v_dim < len(self.value_errors) - 1:
            values, linears["proj"], errors["proj"] = self.narrow_values(v_dim)
            retained["proj"] = 1 - _share(self.value_errors, v_dim)
        if not errors:
            return UNCHANGED
        linears["qkv"] = joined(queries_keys, values)
        return Narrowed(BlockChange(linears, qk_dim=qk_dim, v_dim=v_dim), errors, retained)

    def narrow_values(self, width: int) -> tuple[Dense, Dense, float]:
        """Return values Q_rT W_o v, the proj that maps them by Q_r with the mean of its output unchanged, and its relative error.

        Rows of attention sum to one, so the value bias passes through it unchanged and is folded into proj's bias.
        """
        old, mean = self.proj.weight.detach().double(), self.mixed.mean
        directions = [basis.directions[:, :width] for basis in self.values]
        maps = [out.T @ part for out, part in zip(directions, old.chunk(len(directions), dim=1), strict=True)]
        blocks = self.heads.values.weight.double().chunk(len(directions))
        weight = torch.cat([inner @ part for inner, part in zip(maps, blocks, strict=True)])
        kept = torch.cat([out @ inner for out, inner in zip(directions, maps, strict=True)], dim=1)
        value_bias = self.heads.values.bias.double()
        bias = self.proj.bias.detach().double() + old @ mean - kept @ (mean - value_bias)
        error = relative_error(self.proj, kept, bias - kept @ value_bias, self.mixed)
        return Dense(weight, weight.new_zeros(len(weight))), Dense(torch.cat(directions, dim=1), bias), error


def narrow_attention(model: VisionTransformer, block: int, statistics: Statistics) -> NarrowAttention:
    """Compute the directions of every head of a block, and the loss at every width.

    Queries and keys: `score_basis` of E[q qT] and cov(k). Values: `whitened_basis` of the head's columns of proj and the
    covariance of what attention gives them; the mean goes into proj's bias.

    The sensitivity is known for the outputs of qkv only. Were the derivatives of all scores independent and of one variance
    g, those about q would have the second moment g cov(k), those about k would have g E[q qT], and an error e of a score
    would weigh g e^2. So g is the sensitivity summed over queries and keys, divided by the traces of these moments.

    Raises:
        InputError: the kind of the attention or of the model's positions does not allow it, qkv or proj is low-rank, or a number
            is not finite.
    """
    require_permission(model.config.can_narrow_values(block), f"block {block}", "values that may be narrowed")
    heads, proj = standard_heads(model, block), dense_linear(model, (block, "proj"))
    seen, mixed = statistics.linears[block, "qkv"], statistics.linears[block, "proj"]
    q_mean = heads.q @ seen.mean + heads.q_bias
    q_moments = heads.q @ seen.covariance @ heads.q.mT + q_mean[:, :, None] * q_mean[:, None, :]
    k_moments = heads.k @ seen.covariance @ heads.k.mT
    scores = tuple(score_basis(q, k) for q, k in zip(q_moments, k_moments, strict=True))
    width, covariance = model.config.blocks[block].v_dim, mixed.covariance
    parts = (slice(start, start + width) for start in range(0, len(covariance), width))
    values = tuple(whitened_basis(proj.weight[:, part], covariance[part, part]) for part in parts)
    energy = float((q_moments + k_moments).diagonal(dim1=1, dim2=2).sum())
    outputs = 2 * q_mean.numel()
    return NarrowAttention(
        heads, proj, mixed, scores, values, _left(scores), _left(values), seen.sensitivity * outputs / energy if energy else 0.0
    )


def narrow_scores(heads: Heads, bases: Sequence[ScoreBasis[Tensor]], width: int) -> list[Dense]:
    """Return queries F_rT q and keys G_rT k by head, without a key bias, which cancels in softmax.

    Attention divides scores by the square root of the width; the queries are rescaled for its change.
    """
    scale = (width / heads.q.shape[1]) ** 0.5
    query = scale * torch.stack([basis.query_map[:, :width].T for basis in bases])
    key = torch.stack([basis.key_map[:, :width].T for basis in bases])
    bias = torch.einsum("hrd,hd->hr", query, heads.q_bias)
    return [Dense(query @ heads.q, bias), Dense(key @ heads.k, torch.zeros_like(bias))]


def joined(queries_keys: Sequence[Dense], values: Dense) -> Dense:
    """Return qkv, made of queries and keys by head and of values, in float64."""
    weights = [part.weight.flatten(0, 1) for part in queries_keys]
    biases = [part.bias.flatten() for part in queries_keys]
    return Dense(torch.cat([*weights, values.weight.double()]), torch.cat([*biases, values.bias.double()]))


def _left(bases: Sequence[ScoreBasis[Tensor]] | Sequence[OutputBasis[Tensor]]) -> Tensor:
    """Return the total loss of keeping 0, 1, ... directions of every head."""
    return tail_energy(torch.stack([basis.energies for basis in bases]).sum(0))


def _share(errors: Tensor, width: int) -> float:
    return float(errors[width] / errors[0]) if errors[0] > 0 else 0.0
