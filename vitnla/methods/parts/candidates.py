"""Ways to make a part of a model smaller, each with its cost and its loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Candidate:
    """One way to run a part of a block.

    Args:
        cost: MACs per image of the part's linears, or nanoseconds.
        loss: what it does to the predictions, in a unit that all candidates share.
        sizes: what is cut, and to which width or rank; empty leaves the part as it was.
    """

    cost: int
    loss: float
    sizes: Mapping[str, int]

    def __add__(self, other: Candidate) -> Candidate:
        """Both at once, on parts that have no linear in common."""
        return Candidate(self.cost + other.cost, self.loss + other.loss, {**self.sizes, **other.sizes})


def both(first: Iterable[Candidate], second: Iterable[Candidate]) -> list[Candidate]:
    """Every candidate of one part with every candidate of another."""
    return [one + other for one, other in itertools.product(first, second)]


def frontier(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no cheaper one beats on loss, cheapest first."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.cost, one.loss)):
        if not kept or candidate.loss < kept[-1].loss:
            kept.append(candidate)
    return kept


def scaled(candidates: Iterable[Candidate], factor: float) -> list[Candidate]:
    """The same with their losses in another unit."""
    return [replace(candidate, loss=factor * candidate.loss) for candidate in candidates]


def middle(candidates: Sequence[Candidate]) -> Candidate:
    """The one of half the largest cost, or next to it."""
    full = max(candidate.cost for candidate in candidates)
    return min(candidates, key=lambda candidate: abs(2 * candidate.cost - full))
