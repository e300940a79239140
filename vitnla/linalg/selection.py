"""Choosing a few variables that stand for all of them: pivoted Cholesky, and the regression that completes it.

C is [n, n], the second moment or covariance of n variables x. Choosing columns of C by diagonal pivoting is the greedy
column subset selection of a Gram matrix; C[:, S] C[S, S]^-1 C[S, :] is its Nystrom approximation.

Sources: Higham 1990 ("Analysis of the Cholesky decomposition of a semi-definite matrix", algorithm with complete pivoting);
Harbrecht, Peters & Schneider 2012 (the trace as the error of stopping early); Williams & Seeger 2001 (Nystrom).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpstrf

from vitnla.common.errors import InputError
from vitnla.linalg.matrices import Float64, Matrix, finite_float64

M = TypeVar("M")
"""NumPy arrays here, tensors in `vitnla.linalg`."""


@dataclass(frozen=True)
class PivotedCholesky(Generic[M]):
    """C = L LT in the order in which the pivots were taken, up to the numerical rank r of C.

    Args:
        pivots: [n] int64, a permutation: the r pivots in the order in which they were taken, then what was left over, whose
            rows of C are already spanned.
        factor: [n, r] float64, L, its rows in the order of C. The first k columns are the Nystrom approximation by k pivots.
        residuals: [r + 1] float64, trace of C - L_k L_kT after k = 0 ... r pivots; not negative, falling.
    """

    pivots: M
    factor: M
    residuals: M

    @property
    def rank(self) -> int:
        """r, the pivots taken before C was exhausted."""
        factor: Any = self.factor
        return int(factor.shape[1])


def pivoted_cholesky(matrix: Matrix) -> PivotedCholesky[NDArray[Any]]:
    """Factor a positive semidefinite C, each time by the variable of which least is explained yet.

    It stops when no diagonal entry is above n x machine epsilon x the largest one of C: what is left is rounding noise. The
    algorithm is LAPACK's dpstrf (Lucas 2004).

    Raises:
        InputError: a number is not finite, or C is not square.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"pivoted Cholesky: expected a square matrix, got {list(matrix.shape)}", "pass a second moment")
    c = finite_float64(matrix, "pivoted Cholesky")
    # LAPACK works in blocks: 3,072 variables take seconds, where a loop over the columns takes minutes.
    packed, order, rank, _ = dpstrf(c, lower=1)
    pivots = order.astype(np.int64) - 1
    factor = np.empty((len(c), rank))
    factor[pivots] = np.tril(packed)[:, :rank]
    explained = np.append(0.0, np.square(factor).sum(0).cumsum())
    return PivotedCholesky(pivots, factor, (c.trace() - explained).clip(min=0))


def interpolation(second_moment: Matrix, kept: NDArray[np.int64], damping: float) -> Float64:
    """P = C[:, S] (C[S, S] + lambda I)^-1, [n, |S|] float64: the best linear guess P x_S of all variables from those in S.

    `damping` is lambda over the mean diagonal entry of C[S, S]. With it C[S, S] may be singular, and no coefficient becomes
    larger than the data support.

    Raises:
        InputError: `damping` is not positive, or too small to make a singular C[S, S] regular.
    """
    if not damping > 0:
        raise InputError(f"damping: expected a number above 0, got {damping:g}", "1e-6 hardly changes a well-posed fit")
    c = second_moment.astype(np.float64, copy=False)
    inner = c[np.ix_(kept, kept)]
    # A matrix of zeros says nothing: any positive lambda then gives P = 0.
    strength = damping * float(inner.diagonal().mean()) or 1.0
    try:
        factor = cho_factor(inner + strength * np.eye(len(kept)), lower=True)
    except np.linalg.LinAlgError as error:
        raise InputError(f"damping: {damping:g} is too little for a matrix this close to singular", "try 1e-6") from error
    completed: Float64 = cho_solve(factor, c[kept]).T
    return completed
