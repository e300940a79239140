"""What an allocation chooses from: for each linear, dense or one of a few ranks or widths, with their costs and losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError
from vitnla.linalg.low_rank import tail_energy
from vitnla.model.cost import linear_macs

Rank = int | None
"""Rank of a linear; `None` is dense."""


@dataclass(frozen=True)
class Choice:
    """One way to run a linear, or a group of them: its rank or width, its cost in MACs per image, and the loss it brings."""

    rank: Rank
    cost: int
    loss: float


class Options(Protocol):
    """Something that a budget is shared among."""

    @property
    def dense_macs(self) -> int:
        """MACs per image as it was."""

    def choices(self, multiple: int) -> list[Choice]:
        """Ways to run it in steps of `multiple`, the last one as it was: MACs rise and losses fall along the list."""


@dataclass(frozen=True, eq=False)
class LayerOptions:
    """A linear of (out, in) features that sees `tokens` tokens per image.

    Args:
        name: how errors call it.
        energies: [min(out, in)] float64, descending: squared singular values, which a share of the energy goes by.
        losses: [min(out, in)] float64, not negative: what is lost with each direction, in a unit that all linears share.
    """

    name: str
    shape: tuple[int, int]
    tokens: int
    energies: NDArray[np.float64]
    losses: NDArray[np.float64]

    @property
    def full_rank(self) -> int:
        """min(out, in)."""
        return min(self.shape)

    @property
    def dense_macs(self) -> int:
        """MACs per image as one GEMM."""
        return linear_macs(self.shape, None, self.tokens)

    def saves(self, rank: int) -> bool:
        """Whether two GEMMs through `rank` cost less than one, i.e. rank < mn / (m + n)."""
        return linear_macs(self.shape, rank, self.tokens) < self.dense_macs

    def or_dense(self, rank: int) -> Rank:
        """`rank` where it saves MACs, else dense, which is then both cheaper and exact."""
        return rank if self.saves(rank) else None

    def choices(self, multiple: int) -> list[Choice]:
        """Every multiple of `multiple` that saves MACs, then dense: MACs rise and losses fall along the list."""
        tails = tail_energy(self.losses)
        ranks = [rank for rank in range(multiple, self.full_rank + 1, multiple) if self.saves(rank)]
        low_rank = [Choice(rank, linear_macs(self.shape, rank, self.tokens), float(tails[rank])) for rank in ranks]
        return [*low_rank, Choice(None, self.dense_macs, 0.0)]


class UnattainableTarget(InputError):
    """A target ratio outside of what can be had (exit code 2); `least` is the lowest one, rounded up to three decimals."""

    def __init__(self, message: str, hint: str, least: float) -> None:
        super().__init__(message, hint)
        self.least = least


def budget(dense: int, least: int, target: float, unit: str = "MACs") -> int:
    """The MACs, or what `unit` names, that a `target` ratio of `dense` allows, where the smallest choices together need `least`.

    Raises:
        UnattainableTarget: the target is outside (0, 1], or below what the smallest choices need; names the attainable range.
    """
    if not least <= target * dense <= dense:
        lowest = float(np.ceil(1000 * least / dense) / 1000)
        hint = "choose a ratio in that range, or a smaller multiple of ranks and widths"
        raise UnattainableTarget(f"target {unit}: expected a ratio from {lowest:g} to 1, got {target:g}", hint, lowest)
    return int(target * dense)
