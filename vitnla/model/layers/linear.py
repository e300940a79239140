"""A dense or a low-rank linear. The latter is two plain linears, so every exporter and runtime knows it."""

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
        """[..., in_features] -> [..., out_features]."""
        out: Tensor = self.U(self.V(x))
        return out


def linear(in_features: int, out_features: int, rank: int | None) -> nn.Module:
    """A dense linear, or a low-rank one where a rank is given."""
    return nn.Linear(in_features, out_features) if rank is None else LowRankLinear(in_features, out_features, rank)


def linears(part: BlockPart, dim: int, ranks: Ranks) -> Iterator[nn.Module]:
    """The linears of an attention or of an MLP, in the order in which its config names them."""
    for name, (rows, columns) in part.linears(dim).items():
        yield linear(columns, rows, getattr(ranks, name))


def assign_weight(module: nn.Module, weight: Tensor) -> None:
    """Give a linear this weight [out, in], or where it is low-rank the nearest one of its rank."""
    if isinstance(module, LowRankLinear):
        left, right = balanced_factors(weight, module.V.out_features)
        module.U.weight.copy_(left)
        module.V.weight.copy_(right.T)
    else:
        assert isinstance(module, nn.Linear)
        module.weight.copy_(weight)


def balanced_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors A [m, rank] and B [n, rank] of equal norm, with A B^T the best approximation of `matrix` [m, n]."""
    u, s, vh = torch.linalg.svd(matrix)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, vh[:rank].T * root
