"""Candidate reductions of a part of a model, each with its cost and loss."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Candidate:
    """One way to run a part of a block.

    Args:
        cost: MACs per image of the part's linears, or nanoseconds.
        loss: effect on the predictions, in a unit that all candidates share.
        sizes: the new width or rank by name; empty leaves the part unchanged.
    """

    cost: int
    loss: float
    sizes: Mapping[str, int]

    def __add__(self, other: Candidate) -> Candidate:
        """Combine candidates of parts that have no linear in common."""
        return Candidate(self.cost + other.cost, self.loss + other.loss, {**self.sizes, **other.sizes})


def both(first: Iterable[Candidate], second: Iterable[Candidate]) -> list[Candidate]:
    """Return every candidate of one part combined with every candidate of another."""
    return [one + other for one, other in itertools.product(first, second)]


def frontier(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Return the Pareto frontier: candidates of lower loss than every cheaper one, cheapest first."""
    kept: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda one: (one.cost, one.loss)):
        if not kept or candidate.loss < kept[-1].loss:
            kept.append(candidate)
    return kept


def scaled(candidates: Iterable[Candidate], factor: float) -> list[Candidate]:
    """Return the candidates with their losses multiplied by `factor`."""
    return [replace(candidate, loss=factor * candidate.loss) for candidate in candidates]


def middle(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate whose cost is nearest to half the largest cost."""
    full = max(candidate.cost for candidate in candidates)
    return min(candidates, key=lambda candidate: abs(2 * candidate.cost - full))
