"""Which batch sizes Triton should form: those that bench found best, or a usual few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.results.schema import Cell

_USUAL = (8, 16, 32)
_NEAR = 0.95


@dataclass(frozen=True)
class Batches:
    """`preferred` sizes in ascending order, the `largest` that is formed, and whether that was measured."""

    preferred: tuple[int, ...]
    largest: int
    measured: bool


def batches(cells: Sequence[Cell], bundle: str, runtimes: Sequence[str]) -> Batches:
    """The sizes within 5 % of the best throughput of a bundle on the named runtimes; the largest of them is the largest formed.

    Args:
        cells: of a results file; the later of two for one size counts.
        bundle: its name.
        runtimes: names without their precision or provider.
    """
    found = [cell for cell in cells if cell.bundle == bundle and cell.runtime.partition(":")[0] in runtimes]
    rates = {cell.batch: cell.images_per_s for cell in found if cell.images_per_s}
    if not rates:
        return Batches(_USUAL, _USUAL[-1], False)
    best = max(rates.values())
    good = tuple(sorted(size for size, rate in rates.items() if rate >= _NEAR * best))
    return Batches(good, good[-1], True)


def within(chosen: Batches, largest: int) -> Batches:
    """The same for a model that takes no more than `largest`."""
    kept = tuple(size for size in chosen.preferred if size <= largest) or (largest,)
    return Batches(kept, min(largest, max(kept)), chosen.measured)
