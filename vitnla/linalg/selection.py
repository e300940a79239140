"""Choosing a few variables that stand for all of them: pivoted Cholesky, and the regression that completes it.

C is [n, n], the second moment or covariance of n variables x. Choosing columns of C by diagonal pivoting is the greedy
column subset selection of a Gram matrix; C[:, S] C[S, S]^-1 C[S, :] is its Nystrom approximation.

Sources: Higham 1990 ("Analysis of the Cholesky decomposition of a semi-definite matrix", algorithm with complete pivoting);
Harbrecht, Peters & Schneider 2012 (the trace as the error of stopping early); Williams & Seeger 2001 (Nystrom).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.linalg.lapack import dpstrf
from torch import Tensor

from vitnla.common.errors import InputError


@dataclass(frozen=True)
class PivotedCholesky:
    """C = L LT in the order in which the pivots were taken, up to the numerical rank r of C.

    Args:
        pivots: [n] int64, a permutation: the r pivots in the order in which they were taken, then what was left over, whose
            rows of C are already spanned.
        factor: [n, r] float64, L, its rows in the order of C. The first k columns are the Nystrom approximation by k pivots.
        residuals: [r + 1] float64, trace of C - L_k L_kT after k = 0 ... r pivots; not negative, falling.
    """

    pivots: Tensor
    factor: Tensor
    residuals: Tensor

    @property
    def rank(self) -> int:
        """r, the pivots taken before C was exhausted."""
        return self.factor.shape[1]


def pivoted_cholesky(matrix: Tensor) -> PivotedCholesky:
    """Factor a positive semidefinite C, each time by the variable of which least is explained yet.

    It stops when no diagonal entry is above n x machine epsilon x the largest one of C: what is left is rounding noise. The
    algorithm is LAPACK's dpstrf (Lucas 2004).

    Raises:
        InputError: a number is not finite, or C is not square.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"pivoted Cholesky: expected a square matrix, got {list(matrix.shape)}", "pass a second moment")
    if not torch.isfinite(matrix).all():
        hint = "check the weights and the calibration images"
        raise InputError("pivoted Cholesky: expected finite numbers, got NaN or infinity", hint)
    c = matrix.detach().double()
    # LAPACK works in blocks: 3,072 variables take seconds, where a loop over the columns takes minutes.
    packed, order, rank, _ = dpstrf(c.cpu().numpy(), lower=1)
    pivots = torch.from_numpy(order.astype("int64") - 1)
    columns = torch.from_numpy(packed).tril()[:, :rank]
    factor = torch.empty_like(columns).index_copy_(0, pivots, columns)
    explained = torch.cat([c.new_zeros(1), factor.square().sum(0).cumsum(0)])
    return PivotedCholesky(pivots, factor, (c.trace() - explained).clamp(min=0))


def interpolation(second_moment: Tensor, kept: Tensor, damping: float) -> Tensor:
    """P = C[:, S] (C[S, S] + lambda I)^-1, [n, |S|] float64: the best linear guess P x_S of all variables from those in S.

    `damping` is lambda over the mean diagonal entry of C[S, S]. With it C[S, S] may be singular, and no coefficient becomes
    larger than the data support.

    Raises:
        InputError: `damping` is not positive, or too small to make a singular C[S, S] regular.
    """
    if not damping > 0:
        raise InputError(f"damping: expected a number above 0, got {damping:g}", "1e-6 hardly changes a well-posed fit")
    c = second_moment.double()
    inner = c[kept][:, kept]
    # A matrix of zeros says nothing: any positive lambda then gives P = 0.
    strength = damping * float(inner.diagonal().mean()) or 1.0
    factor, failed = torch.linalg.cholesky_ex(inner + strength * torch.eye(len(kept), dtype=c.dtype, device=c.device))
    if failed.item():
        raise InputError(f"damping: {damping:g} is too little for a matrix this close to singular", "try 1e-6")
    return torch.cholesky_solve(c[kept], factor).T
