"""Batch sizes for Triton's dynamic batching: the best ones in bench results, or defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.results.schema import Cell

_USUAL = (8, 16, 32)
_NEAR = 0.95


@dataclass(frozen=True)
class Batches:
    """`preferred` batch sizes in ascending order, the `largest` one, and whether they were measured."""

    preferred: tuple[int, ...]
    largest: int
    measured: bool


def batches(cells: Sequence[Cell], bundle: str, runtimes: Sequence[str]) -> Batches:
    """Return the batch sizes within 5 % of a bundle's best throughput on the named runtimes; the largest is the maximum.

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
    """Return the batches limited to a model's maximum of `largest`."""
    kept = tuple(size for size in chosen.preferred if size <= largest) or (largest,)
    return Batches(kept, min(largest, max(kept)), chosen.measured)
