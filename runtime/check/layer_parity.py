"""Layer-wise parity: the error of each part of a network against the reference, and the first part that is over the tolerance.

Nothing here runs a model; `export.layer_parity` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vitnla.common.schema import Record

_ROUND_OFF = 1e-6
"""Relative errors up to this are rounding, so where they grow most means nothing."""


class LayerParityRow(Record):
    """The error of the residual stream, or of the output, after one part of the network."""

    layer: str
    """`input`, `blocks.3`, or `output`."""
    part: str
    """`embedding`, `attention`, `mlp` or `head`."""
    relative_error: float | None
    """||value - reference|| / ||reference|| over all reference images; null where the value is not finite."""
    cosine: float | None
    """Cosine of value and reference as vectors."""


class LayerParity(Record):
    """The errors of one bundle on one runtime, part by part."""

    bundle: str
    runtime: str
    precision: str
    reference: str
    """`torch fp32`, or `graph without optimisation` for a bundle that was made from an ONNX file."""
    tolerance: float
    """Largest relative error of a part."""
    layers: tuple[LayerParityRow, ...]
    first: int | None
    """Index in `layers` of the first part over the tolerance; null where none is."""
    probes: int
    """Runs, of one marked output each, that it took to find `first`; the rest of the table took one more per row. As many as there
    are rows where bisection could not find it, since a later part took the error away again."""

    @property
    def steepest(self) -> int | None:
        """Index in `layers` where the error grew most; None where no error is above round-off."""
        errors = [np.inf if row.relative_error is None else row.relative_error for row in self.layers]
        if max(errors, default=0.0) <= _ROUND_OFF:
            return None
        return max(range(len(errors)), key=lambda index: _growth(errors, index))


def _growth(errors: Sequence[float], index: int) -> float:
    before = errors[index - 1] if index else 0.0
    return 0.0 if np.isinf(before) else errors[index] - before


def bisect_first(count: int, over: Callable[[int], bool]) -> int | None:
    """Return the first of `count` parts that is over the tolerance, by bisection; None where the last part is not.

    Right where every part after the first one is over as well. The last part is asked first, so a network without an error costs one
    call; at most 1 + ceil(log2(count)) calls otherwise.
    """
    if not over(count - 1):
        return None
    low, high = 0, count - 1
    while low < high:
        middle = (low + high) // 2
        if over(middle):
            high = middle
        else:
            low = middle + 1
    return high


def layer_parity_row(layer: str, part: str, value: NDArray[np.float32], reference: NDArray[np.float32]) -> LayerParityRow:
    """Compare two arrays of one shape, in float64."""
    actual, wanted = value.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    if not np.isfinite(actual).all():
        return LayerParityRow(layer=layer, part=part, relative_error=None, cosine=None)
    length = max(float(np.linalg.norm(wanted)), float(np.finfo(np.float32).tiny))
    lengths = length * float(np.linalg.norm(actual))
    cosine = float(actual @ wanted) / lengths if lengths > 0 else 0.0
    return LayerParityRow(
        layer=layer, part=part, relative_error=float(np.linalg.norm(actual - wanted)) / length, cosine=min(cosine, 1.0)
    )


def is_over(row: LayerParityRow, tolerance: float) -> bool:
    """Return True if a part is not finite, or further from the reference than the tolerance."""
    return row.relative_error is None or row.relative_error > tolerance
