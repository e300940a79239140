"""Damped least squares from second moments: the map of some variables that guesses others best."""

from __future__ import annotations

from typing import Any

from vitnla.common.errors import InputError
from vitnla.linalg.arrays import A, as_float64, cholesky, identity, namespace


def interpolation(second_moment: A, kept: A, damping: float) -> A:
    """Return P = C[:, S] (C[S, S] + lambda I)^-1, [n, |S|] float64: the best linear guess P x_S of all variables from those in S.

    Args:
        second_moment: C [n, n]; C[S, S] may be singular.
        kept: S, [|S|] int64.
        damping: lambda over the mean diagonal entry of C[S, S]. With it no coefficient becomes larger than the data support.

    Raises:
        InputError: `damping` is not positive, or too small to make a singular C[S, S] regular.
    """
    c = as_float64(second_moment)
    xp = namespace(c)
    columns = xp.take(c, kept, axis=1)
    guess: A = _solve_damped(xp.take(columns, kept, axis=0), columns, damping)
    return guess


def ridge(moment: A, cross: A, damping: float) -> A:
    """Return argmin over D of E|t - D f|^2 + lambda |D without its last column|^2, for features f that end in a constant 1.

    Args:
        moment: [n + 1, n + 1], sum of f fT; its last entry is the number of samples.
        cross: [m, n + 1], sum of t fT.
        damping: lambda over the mean variance of the features.

    Returns:
        [m, n + 1] float64.

    Raises:
        InputError: `damping` is not positive, or too small to make a singular covariance regular.
    """
    f, t = as_float64(moment), as_float64(cross)
    count = f[-1, -1]
    mean, target_mean = f[:-1, -1] / count, t[:, -1] / count
    covariance = f[:-1, :-1] / count - mean[:, None] * mean
    weights = _solve_damped(covariance, t[:, :-1] / count - target_mean[:, None] * mean, damping)
    fitted: A = namespace(f).concat([weights, (target_mean - weights @ mean)[:, None]], axis=1)
    return fitted


def _solve_damped(inner: Any, right: Any, damping: float) -> Any:
    """Return B (A + lambda I)^-1, [m, n], for A [n, n] positive semidefinite and B [m, n]."""
    if not damping > 0:
        raise InputError(f"damping: expected a number above 0, got {damping:g}", "1e-6 hardly changes a well-posed fit")
    xp, size = namespace(inner), inner.shape[0]
    # A matrix of zeros says nothing: any positive lambda then gives zeros.
    strength = damping * float(xp.linalg.trace(inner)) / size or 1.0
    damped = inner + strength * identity(size, inner)
    if cholesky(damped) is None:
        raise InputError(f"damping: {damping:g} is too little for a matrix this close to singular", "try 1e-6")
    return xp.linalg.solve(damped, right.T).T
