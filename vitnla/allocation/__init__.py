"""Allocation of a budget of MACs as a rank per linear."""

from vitnla.allocation.budgeted import knapsack, least_loss, uniform
from vitnla.allocation.options import Choice, LayerOptions, Options, Rank, budget
from vitnla.allocation.ranks import energy, same_rank
from vitnla.allocation.widths import Untouched, WidthOptions

__all__ = [
    "Choice", "LayerOptions", "Options", "Rank", "Untouched", "WidthOptions", "budget", "energy", "knapsack", "least_loss", "same_rank",
    "uniform",
]  # fmt: skip
