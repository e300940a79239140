"""Dense and low-rank linears. The latter are two plain linears, so every exporter and runtime supports them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vitnla.model.config import Ranks
from vitnla.model.config.parts import BlockPart


class LowRankLinear(nn.Module):
    """y = U (V x) + b with V: [rank, in_features], U: [out_features, rank]; two GEMMs instead of one."""

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.V = nn.Linear(in_features, rank, bias=False)
        self.U = nn.Linear(rank, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Compute [..., in_features] -> [..., out_features]."""
        out: Tensor = self.U(self.V(x))
        return out


def linear(in_features: int, out_features: int, rank: int | None) -> nn.Module:
    """Return a dense linear, or a low-rank one where a rank is given."""
    return nn.Linear(in_features, out_features) if rank is None else LowRankLinear(in_features, out_features, rank)


def linears(part: BlockPart, dim: int, ranks: Ranks) -> Iterator[nn.Module]:
    """Yield the linears of an attention or MLP, in the order of its config."""
    for name, (rows, columns) in part.linears(dim).items():
        yield linear(columns, rows, getattr(ranks, name))


def assign_weight(module: nn.Module, weight: Tensor) -> None:
    """Set a linear's weight to `weight` [out, in], or to its best approximation where the linear is low-rank."""
    if isinstance(module, LowRankLinear):
        left, right = balanced_factors(weight, module.V.out_features)
        module.U.weight.copy_(left)
        module.V.weight.copy_(right.T)
    else:
        assert isinstance(module, nn.Linear)
        module.weight.copy_(weight)


def balanced_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return factors A [m, rank] and B [n, rank] of equal norm, with A B^T the best approximation of `matrix` [m, n]."""
    u, s, vh = torch.linalg.svd(matrix)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, vh[:rank].T * root
