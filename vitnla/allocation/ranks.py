"""Ranks by rule, with no budget: one rank everywhere, or the smallest that keeps a share of the energy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vitnla.allocation.options import LayerOptions, Rank
from vitnla.common.errors import InputError


def same_rank(layers: Sequence[LayerOptions], rank: int) -> list[Rank]:
    """Return `rank` for every linear, or dense where `rank` would not save MACs.

    Raises:
        InputError: `rank` is not from 1 to one less than the full rank of every linear; names the linear and its maximum.
    """
    for layer in layers:
        if not 1 <= rank < layer.full_rank:
            hint = "choose a rank below every linear's full rank"
            raise InputError(f"{layer.name}: expected a rank from 1 to {layer.full_rank - 1}, got {rank}", hint)
    return [layer.or_dense(rank) for layer in layers]


def energy(layers: Sequence[LayerOptions], share: float, multiple: int = 1) -> list[Rank]:
    """Return for each linear the smallest multiple of `multiple` that keeps `share` of its energy; dense where that saves nothing.

    Raises:
        InputError: `share` is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"energy: expected a share above 0 and at most 1, got {share:g}", "0.99 keeps 99 % of the energy")
    return [_smallest(layer, share, multiple) for layer in layers]


def _smallest(layer: LayerOptions, share: float, multiple: int) -> Rank:
    kept = np.cumsum(layer.energies)
    needed = int(np.searchsorted(kept, share * kept[-1])) + 1
    return layer.or_dense(-(-needed // multiple) * multiple)
