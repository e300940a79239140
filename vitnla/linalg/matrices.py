"""What every function on matrices shares: the type of its arrays, and the check that their numbers are finite."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError

Matrix = NDArray[np.floating[Any]]
"""float32 or float64, of any shape."""
Float64 = NDArray[np.float64]


def finite_float64(matrix: Matrix, what: str) -> Float64:
    """The matrix in float64.

    Raises:
        InputError: a number is not finite; says that of `what`.
    """
    if not np.isfinite(matrix).all():
        raise InputError(f"{what}: expected finite numbers, got NaN or infinity", "check the weights and the calibration images")
    return matrix.astype(np.float64, copy=False)
