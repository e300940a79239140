"""One block's queries, keys and values of all heads as a third-order tensor, and its Tucker approximations."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from vitnla.calibration.statistics import LinearStatistics, Statistics
from vitnla.common.errors import InputError
from vitnla.linalg.low_rank import Factors, OutputBasis, bias_correction, tail_energy, whitened_basis
from vitnla.linalg.score_basis import ScoreBasis
from vitnla.linalg.symmetric import nearest_psd_factor
from vitnla.linalg.torch.tucker import head_factor
from vitnla.methods.parts.candidates import Candidate
from vitnla.methods.parts.model_edit import BlockChange, Dense, LowRank
from vitnla.methods.parts.narrow_attention import NarrowAttention, joined, narrow_attention, narrow_scores
from vitnla.methods.parts.narrowed import UNCHANGED, Narrowed
from vitnla.model.config import BlockConfig, LinearName
from vitnla.model.cost import linear_macs
from vitnla.model.vit import VisionTransformer


@dataclass(frozen=True, eq=False)
class AttentionTensor:
    """The tensor T [3 heads, d_h, dim + 1] of one block: rows of queries, then keys, then values, whitened by their inputs.

    Every head is in the coordinates that `narrow_attention` finds: its queries and keys have the same diagonal moment diag(S)
    there, and its part of proj has orthonormal columns. Every slice is scaled to the energy that its scores or outputs have,
    in the unit that all linears share. Entry `dim` is the mean of the queries; those of keys and values are exact anyway.

    Args:
        config: the block as it is; `dim` the width of the residual stream, `tokens` its length.
        seen: calibration moments at the input of qkv.
        tensor: T.
        weights: [3 heads, d_h] float64, what an error of each row is multiplied by to have the square of its loss: an error e
            of query i meets keys of energy S_i and costs S_i e^2, one of a key likewise, one of a value is one of the output.
    """

    config: BlockConfig
    dim: int
    tokens: int
    attention: NarrowAttention
    seen: LinearStatistics
    tensor: Tensor
    weights: Tensor

    @classmethod
    def of(cls, model: VisionTransformer, block: int, statistics: Statistics) -> AttentionTensor:
        """Build the tensor of a block.

        Raises:
            InputError: the attention is not standard and dense, its queries and values differ in width, or a number is not
                finite.
        """
        config = model.config.blocks[block]
        width = config.v_dim
        if config.qk_dim != width or width > model.config.dim:
            hint = "decompose the dense model instead"
            raise InputError(f"block {block}: expected heads with values as wide as keys, got {config.qk_dim} and {width}", hint)
        attention, seen = narrow_attention(model, block, statistics), statistics.linears[block, "qkv"]
        queries, keys = narrow_scores(attention.heads, attention.scores, width)
        values, _, _ = attention.narrow_values(width)
        slices = torch.cat([queries.weight, keys.weight, values.weight.reshape(config.heads, width, -1)])
        means = torch.zeros(*slices.shape[:2], 1, dtype=torch.float64)
        means[: config.heads, :, 0] = queries.weight @ seen.mean + queries.bias
        whitened = torch.cat([slices @ nearest_psd_factor(seen.covariance), means], dim=-1)
        score_energies = attention.score_sensitivity * torch.stack([basis.energies for basis in attention.scores])
        value_energies = attention.mixed.sensitivity * torch.stack([basis.energies for basis in attention.values])
        worth = torch.cat([score_energies, score_energies, value_energies]).sum(1)
        energies = whitened.square().sum((1, 2))
        gains = (worth / torch.where(energies > 0, energies, torch.inf)).sqrt()
        by_score = (attention.score_sensitivity * score_energies).sqrt().sqrt()
        weights = torch.cat([by_score, by_score, gains[-config.heads :, None].expand(-1, width)])
        return cls(config, model.config.dim, model.config.tokens, attention, seen, gains[:, None, None] * whitened, weights)

    def candidates(self, multiple: int) -> list[Candidate]:
        """Return every head width and every rank that saves MACs, in steps of `multiple`, for qkv and proj; the uncut form last."""
        full, heads = self.config.v_dim, self.config.heads
        axes, found = head_factor(self.tensor, full), list[Candidate]()
        for width in [*range(multiple, full, multiple), full]:
            shape = (3 * heads * width, self.dim)
            proj, dense = linear_macs((self.dim, heads * width), None, self.tokens), linear_macs(shape, None, self.tokens)
            factor = axes[:, :width]
            lost = sum(self._cut(factor)) if width < full else 0.0
            tails = tail_energy(self._shared(self._heads(factor)[0], factor).energies)
            for rank in range(multiple, min(shape), multiple):
                if (macs := linear_macs(shape, rank, self.tokens)) < dense:
                    found.append(Candidate(proj + macs, lost + float(tails[rank]), {"head_dim": width, "rank": rank}))
            found.append(Candidate(proj + dense, lost, {"head_dim": width}))
        return found

    def at(self, width: int, rank: int | None) -> Narrowed:
        """Return the attention with heads of `width`, 1 ... d_h, and qkv of a rank, or dense.

        The error and energy of qkv are those of its losses, of scores and of values. Those of proj are of its output, for
        exact values.
        """
        if rank is None and width == self.config.v_dim:
            return UNCHANGED
        factor = head_factor(self.tensor, width)
        qkv, proj, proj_error = self._heads(factor)
        scores, values = self._cut(factor)
        all_scores, all_values = self._cut(torch.zeros_like(factor))
        lost, total = scores + values, all_scores + all_values
        linears: dict[LinearName, Dense | LowRank] = {"qkv": qkv, "proj": proj}
        if rank is not None:
            basis = self._shared(qkv, factor)
            linears["qkv"] = self._low_rank(qkv, factor, basis, rank)
            lost += float(basis.energies[rank:].sum())
        change = BlockChange(linears, qk_dim=width, v_dim=width)
        share, value_share = _share(lost, total), _share(values, all_values)
        return Narrowed(change, {"qkv": share**0.5, "proj": proj_error}, {"qkv": 1 - share, "proj": 1 - value_share})

    def _cut(self, factor: Tensor) -> tuple[float, float]:
        """Return the loss of scores and values outside the axes `factor` [d_h, width]; exact if heads are uncorrelated."""
        attention = self.attention
        dropped = torch.eye(len(factor), dtype=factor.dtype) - factor @ factor.T
        scores = torch.stack([basis.energies.sqrt() for basis in attention.scores])
        values = torch.stack([basis.energies for basis in attention.values]).sum(0)
        score_error = float(torch.einsum("ni,ij,nj->", scores, dropped.square(), scores))
        value_error = float(dropped.diagonal() @ values)
        return attention.score_sensitivity * max(0.0, score_error), attention.mixed.sensitivity * max(0.0, value_error)

    def _heads(self, factor: Tensor) -> tuple[Dense, Dense, float]:
        """Return qkv and proj with the axes `factor` [d_h, width] of every head, and the relative error of proj."""
        attention, width = self.attention, factor.shape[1]
        scores = tuple(ScoreBasis(b.query_map @ factor, b.key_map @ factor, b.energies[:width]) for b in attention.scores)
        values = tuple(OutputBasis(basis.directions @ factor, basis.energies[:width]) for basis in attention.values)
        narrowed, proj, error = dataclasses.replace(attention, values=values).narrow_values(width)
        return joined(narrow_scores(attention.heads, scores, width), narrowed), proj, error

    def _weighted(self, qkv: Dense, factor: Tensor) -> Tensor:
        """Return the rows of narrowed heads [3 heads width, dim], weighted so that the energy of an error is its loss."""
        width = factor.shape[1]
        metrics = torch.einsum("hw,nh,hv->nwv", factor, self.weights.square(), factor)
        metrics[: self.config.heads] *= self.config.qk_dim / width  # narrower queries make up for the scale of scores
        roots = torch.stack([nearest_psd_factor(metric).T for metric in metrics])
        return (roots @ qkv.weight.reshape(len(metrics), width, -1)).flatten(0, 1)

    def _shared(self, qkv: Dense, factor: Tensor) -> OutputBasis[Tensor]:
        """Return the principal outputs of the weighted rows: those that a rank of qkv keeps, and the loss of the others."""
        return whitened_basis(self._weighted(qkv, factor), self.seen.covariance)

    def _low_rank(self, qkv: Dense, factor: Tensor, basis: OutputBasis[Tensor], rank: int) -> LowRank:
        """Return qkv through `rank` features of a token that all heads share, each head by its regression on these."""
        shared = basis.directions[:, :rank].T @ self._weighted(qkv, factor)
        energies = basis.energies[:rank]
        used = energies > len(basis.energies) * torch.finfo(torch.float64).eps * basis.energies[0]
        regression = qkv.weight @ self.seen.covariance @ shared.T / torch.where(used, energies, torch.inf)
        factors = Factors(regression, shared)
        return LowRank(factors, qkv.bias + bias_correction(qkv.weight, factors, self.seen.mean))


def _share(part: float, total: float) -> float:
    return min(1.0, part / total) if total > 0 else 0.0
