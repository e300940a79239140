"""How a budget of MACs becomes a rank per linear."""

from vitnla.allocation.budgeted import knapsack, uniform
from vitnla.allocation.options import Choice, LayerOptions, Rank
from vitnla.allocation.ranks import energy, same_rank

__all__ = ["Choice", "LayerOptions", "Rank", "energy", "knapsack", "same_rank", "uniform"]
