"""Helpers shared by all functions on arrays: the array's library, float64, and checks of arguments.

The array API standard (data-apis.org/array-api) has one spelling for NumPy and torch; `array_api_compat` gives both that spelling.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import array_api_compat
import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError

A = TypeVar("A")
"""A NumPy array or a torch tensor. Inside a function arrays are `Any`: the array API has no type stubs yet."""
Matrix = NDArray[np.floating[Any]]
"""float32 or float64, of any shape."""
Float64 = NDArray[np.float64]
EPSILON = float(np.finfo(np.float64).eps)


def namespace(array: Any) -> Any:
    """Return the array-API namespace of the library that `array` is of."""
    return array_api_compat.array_namespace(array)


def as_float64(array: Any) -> Any:
    """Return the array in float64, without gradients; not copied where it is float64 already."""
    plain = array.detach() if array_api_compat.is_torch_array(array) else array
    xp = namespace(plain)
    return xp.astype(plain, xp.float64, copy=False)


def finite_float64(array: Any, what: str) -> Any:
    """Return the array in float64 as `as_float64` does.

    Raises:
        InputError: a number is not finite; says that of `what`.
    """
    wide = as_float64(array)
    xp = namespace(wide)
    if not xp.all(xp.isfinite(wide)):
        raise InputError(f"{what}: expected finite numbers, got NaN or infinity", "check the weights and the calibration images")
    return wide


def beside(array: A, other: Any) -> A:
    """Return `array` on the device of `other`, an array of the same library; not copied where it is there already."""
    moved: A = array_api_compat.to_device(array, array_api_compat.device(other))
    return moved


def to_numpy(array: Any) -> NDArray[Any]:
    """Return the array as NumPy's; one on the CPU is not copied."""
    plain = array.detach() if array_api_compat.is_torch_array(array) else array
    return np.asarray(array_api_compat.to_device(plain, "cpu"))


def from_numpy(array: NDArray[Any], like: Any) -> Any:
    """Return a NumPy array as one of the library and on the device of `like`, in its own dtype."""
    # Reversed and transposed views have strides that torch does not know.
    return namespace(like).asarray(np.ascontiguousarray(array), device=array_api_compat.device(like))


def identity(size: int, like: Any) -> Any:
    """Return the identity [size, size] in float64, of the library and on the device of `like`."""
    xp = namespace(like)
    return xp.eye(size, dtype=xp.float64, device=array_api_compat.device(like))


def inverse_sqrt(values: Any, used: Any) -> Any:
    """Return 1 / sqrt(values) where `used`, elsewhere 0."""
    xp = namespace(values)
    return 1 / xp.sqrt(xp.where(used, values, xp.full_like(values, math.inf)))


def cholesky(matrix: Any) -> Any | None:
    """Return the lower Cholesky factor of a symmetric float64 matrix, or `None` where it is not positive definite."""
    try:
        return namespace(matrix).linalg.cholesky(matrix)
    except Exception as error:
        # Each library has an error of its own, and torch's derives from RuntimeError, as its lack of memory does.
        if type(error).__name__ not in ("LinAlgError", "_LinAlgError"):
            raise
        return None
