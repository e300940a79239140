"""A narrower MLP: some hidden units stay as they are, and the linear after them is fitted anew to make up for the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

from vitnla.linalg.arrays import A, as_float64, namespace
from vitnla.linalg.low_rank import output_error
from vitnla.linalg.moments import Affine, Moments, relative_error
from vitnla.linalg.pivoted_cholesky import pivoted_cholesky
from vitnla.linalg.regression import interpolation


@dataclass(frozen=True, eq=False)
class MlpFit(Generic[A]):
    """An MLP at one width.

    Args:
        kept: [width] int64, rising: its hidden units.
        first: the linear that makes them, weight [width, in], in its old dtype.
        second: the fitted map that reads them alone, weight [out, width], float64.
        error: that of its output, see `moments.relative_error`; `retained` the share of that output's variance.
    """

    kept: A
    first: Affine[A]
    second: Affine[A]
    error: float
    retained: float


@dataclass(frozen=True, eq=False)
class MlpCurve(Generic[A]):
    """An MLP at every width, from one factorisation.

    Args:
        first: the linear that makes the hidden units; `second`: the one that reads them.
        hidden: what calibration saw at the input of `second`.
        damping: ridge of the fit, relative to the mean variance of the units that are kept.
        order: [units] int64, the first one to keep first.
        errors: [units + 1] float64, E|error of the output|^2 at every width but for the damping; it falls to 0, from the
            variance of the output at width 0.
    """

    first: Affine[A]
    second: Affine[A]
    hidden: Moments[A]
    damping: float
    order: A
    errors: A

    @classmethod
    def of(cls, first: Affine[A], second: Affine[A], hidden: Moments[A], damping: float) -> MlpCurve[A]:
        """Order the units by pivoted Cholesky and tell what every width loses, on the device of the weights.

        The covariance C of the activations is scaled by the norms of the linear's columns on both sides, so that a unit counts
        by what it writes. With C = L LT in pivot order, k units and the best map of them lose the energy of (W L) beyond
        column k.

        Raises:
            InputError: a number is not finite.
        """
        hidden = hidden.beside(second.weight)
        weight, covariance = as_float64(second.weight), as_float64(hidden.covariance)
        xp = namespace(weight)
        norms = xp.linalg.vector_norm(weight, axis=0)
        chosen = pivoted_cholesky(norms[:, None] * covariance * norms)
        written = (weight / xp.where(norms > 0, norms, xp.ones_like(norms))) @ chosen.factor
        total = output_error(weight, covariance)
        explained = xp.cumulative_sum((written**2).sum(0), include_initial=True)
        errors = xp.zeros_like(xp.concat([norms, norms[:1]]))
        errors[: chosen.rank + 1] = xp.clip(total - explained, min=0)
        errors[-1] = 0.0
        return cls(first, second, hidden, damping, chosen.pivots, errors)

    @property
    def full(self) -> int:
        """Hidden units of the MLP as it is."""
        return self.second.shape[1]

    @property
    def losses(self) -> A:
        """[units + 1] float64, `errors` in the unit that all linears share: sensitivity x energy."""
        errors: Any = self.errors
        losses: A = self.hidden.sensitivity * errors
        return losses

    def at(self, width: int) -> MlpFit[A]:
        """Return the best fit with `width` units, 1 ... units."""
        order: Any = self.order
        xp = namespace(order)
        kept, mean, old = xp.sort(order[:width]), as_float64(self.hidden.mean), as_float64(self.second.weight)
        fitted = old @ interpolation(self.hidden.covariance, kept, self.damping)
        bias = as_float64(self.second.bias) + old @ mean - fitted @ mean[kept]
        spread = xp.zeros_like(old)
        spread[:, kept] = fitted
        error = relative_error(self.second, Affine(spread, bias), self.hidden)
        errors: Any = self.errors
        retained = float(1 - errors[width] / errors[0]) if errors[0] > 0 else 1.0
        weight: Any = self.first.weight
        first_bias: Any = self.first.bias
        return MlpFit(kept, Affine(weight[kept], first_bias[kept]), Affine(fitted, bias), error, retained)
