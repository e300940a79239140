"""Choosing a few variables that stand for all of them: Cholesky decomposition with diagonal pivoting.

C is [n, n], the second moment or covariance of n variables x. Choosing columns of C by diagonal pivoting is the greedy
column subset selection of a Gram matrix; C[:, S] C[S, S]^-1 C[S, :] is its Nystrom approximation.

Sources: Higham 1990 ("Analysis of the Cholesky decomposition of a semi-definite matrix", algorithm with complete pivoting);
Harbrecht, Peters & Schneider 2012 (the trace as the error of stopping early); Williams & Seeger 2001 (Nystrom).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

import numpy as np
from scipy.linalg.lapack import dpstrf

from vitnla.common.errors import InputError
from vitnla.linalg.arrays import A, finite_float64, from_numpy, to_numpy


@dataclass(frozen=True)
class PivotedCholesky(Generic[A]):
    """C = L LT in the order in which the pivots were taken, up to the numerical rank r of C.

    Args:
        pivots: [n] int64, a permutation: the r pivots in the order in which they were taken, then what was left over, whose
            rows of C are already spanned.
        factor: [n, r] float64, L, its rows in the order of C. The first k columns are the Nystrom approximation by k pivots.
        residuals: [r + 1] float64, trace of C - L_k L_kT after k = 0 ... r pivots; not negative, falling.
    """

    pivots: A
    factor: A
    residuals: A

    @property
    def rank(self) -> int:
        """r, the pivots taken before C was exhausted."""
        factor: Any = self.factor
        return int(factor.shape[1])


def pivoted_cholesky(matrix: A) -> PivotedCholesky[A]:
    """Factor a positive semidefinite C, each time by the variable of which least is explained yet.

    It stops when no diagonal entry is above n x machine epsilon x the largest one of C: what is left is rounding noise.

    The algorithm is LAPACK's dpstrf (Lucas 2004), so what is on a GPU is copied to the CPU and back: the array API has no pivoted
    factorisation, and one written in its operations is several times slower (n = 384 ... 1536).

    Raises:
        InputError: a number is not finite, or C is not square.
    """
    c = finite_float64(matrix, "pivoted Cholesky")
    if c.ndim != 2 or c.shape[0] != c.shape[1]:
        raise InputError(f"pivoted Cholesky: expected a square matrix, got {list(c.shape)}", "pass a second moment")
    host = to_numpy(c)
    packed, order, rank, _ = dpstrf(host, lower=1)
    pivots = order.astype(np.int64) - 1
    factor = np.empty((len(host), rank))
    factor[pivots] = np.tril(packed)[:, :rank]
    explained = np.append(0.0, np.square(factor).sum(0).cumsum())
    residuals = (host.trace() - explained).clip(min=0)
    return PivotedCholesky(from_numpy(pivots, c), from_numpy(factor, c), from_numpy(residuals, c))
