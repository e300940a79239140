"""The symmetric part of a square matrix, and a Cholesky factor that every positive semidefinite one has."""

from __future__ import annotations

import numpy as np

from vitnla.common.errors import InputError
from vitnla.linalg.matrices import Float64, Matrix, finite_float64


def symmetric_part(matrix: Matrix) -> Float64:
    """(M + M^T) / 2, the nearest symmetric matrix in every norm |R^T (M - S) R|; [n, n] float64.

    Raises:
        InputError: a number is not finite, or the matrix is not square.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"expected a square matrix, got {list(matrix.shape)}", "report this as a bug")
    wide = finite_float64(matrix, "matrix")
    return (wide + wide.T) / 2


def cholesky_factor(matrix: Matrix) -> Float64:
    """Lower-triangular L, diagonal not negative, with L L^T the nearest PSD matrix; singular ones included.

    By QR of its root instead of Cholesky, which breaks down where an eigenvalue is zero: S = V w V^T, (V sqrt(w))^T = Q L^T.
    """
    values, vectors = np.linalg.eigh(symmetric_part(matrix))
    _, upper = np.linalg.qr((vectors * np.sqrt(values.clip(min=0))).T)
    flip = np.where(upper.diagonal() < 0, -1.0, 1.0)
    return np.tril((upper * flip[:, None]).T)
