"""One linear as a product of two thin ones, at every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from vitnla.linalg.low_rank import (
    Factors,
    OutputBasis,
    bias_correction,
    cholesky_basis,
    energies_along,
    output_basis,
    project,
    retained_energy,
    svd_basis,
)
from vitnla.linalg.matrices import Float64, Matrix
from vitnla.linalg.moments import Affine, Moments, relative_error

Weighting = Literal["none", "gram", "cholesky", "centered"]
"""`cholesky` is `gram` by another algorithm: whitening by a Cholesky factor, where `gram` takes eigenvectors of the outputs."""


@dataclass(frozen=True)
class LowRankMap:
    """y = U (V x) + bias, in the dtype of the map that it replaces."""

    factors: Factors[Matrix]
    bias: Matrix


@dataclass(frozen=True, eq=False)
class LowRankCurve:
    """The best factors of a linear for every rank, by one of the measures that `svd` knows.

    Args:
        linear: the map as it is.
        moments: what calibration saw at its input.
        basis: orthonormal directions of the output, best first.
        lost: [k] float64, what cutting each direction does to the predictions: sensitivity x its output energy.
    """

    linear: Affine
    moments: Moments
    weighting: Weighting
    basis: OutputBasis[Float64]
    lost: Float64

    @classmethod
    def of(cls, linear: Affine, moments: Moments, weighting: Weighting) -> LowRankCurve:
        """Find the directions.

        Raises:
            InputError: a number is not finite.
        """
        second_moment = moments.covariance if weighting == "centered" else moments.gram
        basis = _basis(linear.weight, second_moment, weighting)
        # A direction costs its output energy, also where it was chosen without looking at any input.
        lost = moments.sensitivity * energies_along(linear.weight, basis.directions, second_moment)
        return cls(linear, moments, weighting, basis, lost)

    @property
    def losses(self) -> Float64:
        """[k + 1] float64: what keeping the first 0 ... k directions loses."""
        return np.append(self.lost[::-1].cumsum()[::-1], 0.0)

    def at(self, rank: int) -> LowRankMap:
        """The factors of a rank in 1 ... k, with the mean moved into the bias where the weighting is `centered`."""
        weight, bias = self.linear.weight, self.linear.bias
        factors = project(weight, self.basis, rank)
        if self.weighting == "centered":
            bias = (bias.astype(np.float64) + bias_correction(weight, factors, self.moments.mean)).astype(bias.dtype)
        return LowRankMap(factors, bias)

    def relative_error(self, new: LowRankMap) -> float:
        """That of the output, see `moments.relative_error`."""
        wide = new.factors.U.astype(np.float64) @ new.factors.V.astype(np.float64)
        return relative_error(self.linear, Affine(wide, new.bias.astype(np.float64)), self.moments)

    def retained(self, rank: int) -> float:
        """Share of the energy in the directions kept."""
        return retained_energy(self.basis.energies, rank)


def _basis(weight: Matrix, second_moment: Float64, weighting: Weighting) -> OutputBasis[Float64]:
    if weighting == "none":
        return svd_basis(weight)
    return cholesky_basis(weight, second_moment) if weighting == "cholesky" else output_basis(weight, second_moment)
