"""Options of an allocation: for each linear, dense or one of a few ranks or widths, with their costs and losses."""

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
    """One option for a linear or a group of them: its rank or width, its cost in MACs per image, and its loss."""

    rank: Rank
    cost: int
    loss: float


class Options(Protocol):
    """Anything that takes a share of a budget."""

    @property
    def dense_macs(self) -> int:
        """MACs per image before any change."""

    def choices(self, multiple: int) -> list[Choice]:
        """Return its options in steps of `multiple`, the unchanged one last: MACs rise and losses fall along the list."""


@dataclass(frozen=True, eq=False)
class LayerOptions:
    """A linear of (out, in) features that sees `tokens` tokens per image.

    Args:
        name: its name in errors.
        energies: [min(out, in)] float64, descending: squared singular values, of which `energy` keeps a share.
        losses: [min(out, in)] float64, not negative: the loss of dropping each direction, in a unit that all linears share.
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
        """Return whether two GEMMs through `rank` cost less than one, i.e. rank < mn / (m + n)."""
        return linear_macs(self.shape, rank, self.tokens) < self.dense_macs

    def or_dense(self, rank: int) -> Rank:
        """Return `rank` where it saves MACs, else dense, which is then both cheaper and exact."""
        return rank if self.saves(rank) else None

    def choices(self, multiple: int) -> list[Choice]:
        """Return every multiple of `multiple` that saves MACs, then dense: MACs rise and losses fall along the list."""
        tails = tail_energy(self.losses)
        ranks = [rank for rank in range(multiple, self.full_rank + 1, multiple) if self.saves(rank)]
        low_rank = [Choice(rank, linear_macs(self.shape, rank, self.tokens), float(tails[rank])) for rank in ranks]
        return [*low_rank, Choice(None, self.dense_macs, 0.0)]


class UnattainableTarget(InputError):
    """A target ratio outside the attainable range (exit code 2); `least` is the lowest one, rounded up to three decimals."""

    def __init__(self, message: str, hint: str, least: float) -> None:
        super().__init__(message, hint)
        self.least = least


def budget(dense: int, least: int, target: float, unit: str = "MACs") -> int:
    """Return the budget, in MACs or `unit`, of a `target` ratio of `dense`, where the smallest choices together need `least`.

    Raises:
        UnattainableTarget: the target is outside (0, 1], or below what the smallest choices need; names the attainable range.
    """
    if not least <= target * dense <= dense:
        lowest = float(np.ceil(1000 * least / dense) / 1000)
        hint = "choose a ratio in that range, or a smaller multiple of ranks and widths"
        raise UnattainableTarget(f"target {unit}: expected a ratio from {lowest:g} to 1, got {target:g}", hint, lowest)
    return int(target * dense)
