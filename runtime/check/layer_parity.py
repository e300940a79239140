"""Where in a network a runtime or a precision leaves the reference: the search, and what it found. Nothing here runs a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vitnla.common.schema import Record


class LayerError(Record):
    """The value of the residual stream, or of the output, after one part of the network, against the reference."""

    layer: str
    """`input`, `blocks.3`, or `output`."""
    part: str
    """`embedding`, `attention`, `mlp` or `head`."""
    relative_error: float | None
    """||value - reference|| / ||reference|| over all reference images; null where the value is not finite."""
    cosine: float | None
    """Of the two as vectors."""


class Departure(Record):
    """One bundle on one runtime, part by part."""

    bundle: str
    runtime: str
    precision: str
    reference: str
    """`torch fp32`, or `graph without optimisation` for a bundle that was made from an ONNX file."""
    tolerance: float
    """A part has departed where its relative error is above this."""
    layers: tuple[LayerError, ...]
    first: int | None
    """Place in `layers` of the first that departed; null where none did."""
    probes: int
    """How many runs, of one marked output each, it took to find `first`; the rest of the table took one more for each row. As many
    as there are rows where bisection could not find it, since a later part took the error away again."""

    @property
    def steepest(self) -> int | None:
        """Place in `layers` where the error grew most; null where no error is above a millionth, so nothing grew but round-off."""
        errors = [np.inf if row.relative_error is None else row.relative_error for row in self.layers]
        if max(errors, default=0.0) <= 1e-6:
            return None
        return max(range(len(errors)), key=lambda place: _rise(errors, place))


def _rise(errors: Sequence[float], place: int) -> float:
    before = errors[place - 1] if place else 0.0
    return 0.0 if np.isinf(before) else errors[place] - before


def first_departure(count: int, departs: Callable[[int], bool]) -> int | None:
    """Bisect for the first of `count` parts that departs, where all after it do too; asks at most 1 + log2(count) times, rounded up.

    The last part is asked first: where the answer is right, nothing is searched for.
    """
    if not departs(count - 1):
        return None
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if departs(middle):
            high = middle
        else:
            low = middle + 1
    return high


def layer_error(layer: str, part: str, value: NDArray[np.float32], reference: NDArray[np.float32]) -> LayerError:
    """Compare two arrays of one shape."""
    found, wanted = value.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    if not np.isfinite(found).all():
        return LayerError(layer=layer, part=part, relative_error=None, cosine=None)
    length = max(float(np.linalg.norm(wanted)), float(np.finfo(np.float32).tiny))
    both = length * float(np.linalg.norm(found))
    cosine = float(found @ wanted) / both if both > 0 else 0.0
    return LayerError(
        layer=layer, part=part, relative_error=float(np.linalg.norm(found - wanted)) / length, cosine=min(cosine, 1.0)
    )


def departs(row: LayerError, tolerance: float) -> bool:
    """Whether a part is not finite, or further from the reference than the tolerance."""
    return row.relative_error is None or row.relative_error > tolerance
