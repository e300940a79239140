"""A narrower MLP: some hidden units stay as they are, and the linear after them is fitted anew to make up for the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitnla.linalg.low_rank import output_error
from vitnla.linalg.matrices import Float64
from vitnla.linalg.moments import Affine, Moments, relative_error
from vitnla.linalg.selection import interpolation, pivoted_cholesky


@dataclass(frozen=True, eq=False)
class FittedUnits:
    """Some hidden units and the map that reads them alone.

    Args:
        kept: [width] int64, rising.
        second: weight [out, width] and bias [out], float64.
        error: that of its output, see `moments.relative_error`; `retained` the share of that output's variance.
    """

    kept: NDArray[np.int64]
    second: Affine
    error: float
    retained: float


@dataclass(frozen=True, eq=False)
class UnitChoice:
    """The hidden units before a linear, at every width, from one factorisation.

    Args:
        second: the linear that reads them.
        hidden: what calibration saw at its input.
        damping: ridge of the fit, relative to the mean variance of the units that are kept.
        order: [units] int64, the first one to keep first.
        errors: [units + 1] float64, E|error of the output|^2 at every width but for the damping; it falls to 0, from the
            variance of the output at width 0.
    """

    second: Affine
    hidden: Moments
    damping: float
    order: NDArray[np.int64]
    errors: Float64

    @classmethod
    def of(cls, second: Affine, hidden: Moments, damping: float) -> UnitChoice:
        """Order the units by pivoted Cholesky and tell what every width loses.

        The covariance C of the activations is scaled by the norms of the linear's columns on both sides, so that a unit counts
        by what it writes. With C = L LT in pivot order, k units and the best map of them lose the energy of (W L) beyond
        column k.

        Raises:
            InputError: a number is not finite.
        """
        weight, covariance = second.weight.astype(np.float64), hidden.covariance
        norms = np.linalg.norm(weight, axis=0)
        chosen = pivoted_cholesky(norms[:, None] * covariance * norms)
        written = (weight / np.where(norms > 0, norms, 1)) @ chosen.factor
        total = output_error(weight, covariance)
        errors = np.zeros(len(norms) + 1)
        errors[0], errors[1 : chosen.rank + 1] = total, total - np.square(written).sum(0).cumsum()
        errors[-1] = 0.0
        return cls(second, hidden, damping, chosen.pivots, errors.clip(min=0))

    @property
    def losses(self) -> Float64:
        """[units + 1] float64, `errors` in the unit that all linears share: sensitivity x energy."""
        return self.hidden.sensitivity * self.errors

    def at(self, width: int) -> FittedUnits:
        """The best fit with `width` units, 1 ... units."""
        kept = np.sort(self.order[:width])
        mean, old = self.hidden.mean, self.second.weight.astype(np.float64)
        fitted = old @ interpolation(self.hidden.covariance, kept, self.damping)
        bias = self.second.bias.astype(np.float64) + old @ mean - fitted @ mean[kept]
        spread = np.zeros_like(old)
        spread[:, kept] = fitted
        error = relative_error(self.second, Affine(spread, bias), self.hidden)
        retained = float(1 - self.errors[width] / self.errors[0]) if self.errors[0] > 0 else 1.0
        return FittedUnits(kept, Affine(fitted, bias), error, retained)
