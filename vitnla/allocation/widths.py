"""Options of an allocation for layers that become narrower, and fixed costs of unchanged layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitnla.allocation.options import Choice


@dataclass(frozen=True, eq=False)
class WidthOptions:
    """Linears that share one inner width, such as fc1 and fc2.

    Args:
        unit_macs: MACs per image of one unit of width.
        losses: [full width + 1] float64, falling to 0: the loss at each width, in a unit that all layers share.
    """

    unit_macs: int
    losses: NDArray[np.float64]

    @property
    def full(self) -> int:
        """The full width."""
        return len(self.losses) - 1

    @property
    def dense_macs(self) -> int:
        """MACs per image at the full width."""
        return self.full * self.unit_macs

    def choices(self, multiple: int) -> list[Choice]:
        """Return every multiple of `multiple` below the full width, then the full width, as `None`."""
        widths = range(multiple, self.full, multiple)
        narrower = [Choice(width, width * self.unit_macs, float(self.losses[width])) for width in widths]
        return [*narrower, Choice(None, self.dense_macs, 0.0)]


@dataclass(frozen=True)
class Untouched:
    """Linears that a method does not change; they still count towards the budget."""

    dense_macs: int

    def choices(self, multiple: int) -> list[Choice]:
        """Return the single option, unchanged."""
        return [Choice(None, self.dense_macs, 0.0)]
