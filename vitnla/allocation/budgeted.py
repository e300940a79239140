"""Ranks under a budget: the same fraction for every linear, or the least loss within the budget."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from vitnla.allocation.options import Choice, Options, Rank, budget

_MAX_UNITS = 100_000
"""Finest division of a budget: the tables of 48 linears then take some tens of megabytes."""


def uniform(layers: Sequence[Options], target: float, multiple: int = 8) -> list[Rank]:
    """Return ranks that give every linear the same fraction of its dense MACs, as nearly as multiples of `multiple` allow.

    All linears start at their smallest choice; the next step always goes to the linear that it leaves at the lowest
    fraction, until no step fits. The total is never above `target`, and no linear could take one more step.

    Raises:
        InputError: the target cannot be attained; names the attainable range.
    """
    choices = [layer.choices(multiple) for layer in layers]
    left = _allowed(layers, choices, target) - sum(options[0].cost for options in choices)
    steps = [0] * len(layers)

    def step(index: int) -> list[tuple[float, int]]:
        following = steps[index] + 1
        options = choices[index]
        return [(options[following].cost / options[-1].cost, index)] if following < len(options) else []

    queue = [entry for index in range(len(layers)) for entry in step(index)]
    heapq.heapify(queue)
    while queue:
        _, index = heapq.heappop(queue)
        cost = choices[index][steps[index] + 1].cost - choices[index][steps[index]].cost
        if cost <= left:
            left -= cost
            steps[index] += 1
            for entry in step(index):
                heapq.heappush(queue, entry)
    return [options[taken].rank for options, taken in zip(choices, steps, strict=True)]


def knapsack(layers: Sequence[Options], target: float, multiple: int = 8) -> list[Rank]:
    """Return the ranks of least total loss within `target` x the dense MACs: a multiple-choice knapsack.

    Solved by dynamic programming over the MACs spent (Dudzinski & Walukiewicz 1987), in units of their greatest common
    divisor, so the answer is optimal; where that would be finer than 1/100,000 of the budget, MACs are rounded up to such
    a unit, so the total still keeps to the budget.

    Raises:
        InputError: the target cannot be attained; names the attainable range.
    """
    choices = [layer.choices(multiple) for layer in layers]
    allowed = _allowed(layers, choices, target)
    picks = least_loss(choices, allowed)
    return [options[pick].rank for options, pick in zip(choices, picks, strict=True)]


class Costed(Protocol):
    """An option with its cost (MACs or nanoseconds) and its loss."""

    @property
    def cost(self) -> int: ...  # noqa: D102

    @property
    def loss(self) -> float: ...  # noqa: D102


def least_loss(choices: Sequence[Sequence[Costed]], allowed: int) -> list[int]:
    """Return the index of the option of each group for the least total loss at a cost of at most `allowed` (see `knapsack`).

    Args:
        choices: for each group, its options, of which the cheapest together cost no more than `allowed`.
    """
    common = math.gcd(*(choice.cost for options in choices for choice in options))
    # Only what is spent beyond the smallest choices is counted in units: rounding up must not push those above the budget.
    base = [min(choice.cost for choice in options) for options in choices]
    spare = allowed - sum(base)
    unit = max(common, -(-spare // _MAX_UNITS))
    costs = [[-(-(choice.cost - first) // unit) for choice in options] for options, first in zip(choices, base, strict=True)]
    return _cheapest(choices, costs, spare // unit)


def _allowed(layers: Sequence[Options], choices: Sequence[Sequence[Choice]], target: float) -> int:
    return budget(sum(layer.dense_macs for layer in layers), sum(options[0].cost for options in choices), target)


def _cheapest(choices: Sequence[Sequence[Costed]], costs: Sequence[Sequence[int]], capacity: int) -> list[int]:
    """Solve the dynamic programme: `loss[c]` is the least loss so far within c units, `taken[i][c]` the choice of group i for it."""
    loss = np.zeros(capacity + 1)
    taken = []
    for options, units in zip(choices, costs, strict=True):
        table = np.full((len(options), capacity + 1), np.inf)
        for row, (choice, cost) in enumerate(zip(options, units, strict=True)):
            if cost <= capacity:
                table[row, cost:] = loss[: capacity + 1 - cost] + choice.loss
        taken.append(table.argmin(axis=0).astype(np.int32))
        loss = table.min(axis=0)
    picks: list[int] = []
    left = capacity
    for units, best in zip(reversed(costs), reversed(taken), strict=True):
        picks.append(int(best[left]))
        left -= units[picks[-1]]
    return picks[::-1]
