"""One linear as a product of two thin ones, at every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal

from vitnla.linalg.arrays import A, as_float64, namespace
from vitnla.linalg.low_rank import (
    OutputBasis,
    bias_correction,
    energies_along,
    project,
    retained_energy,
    svd_basis,
    tail_energy,
    whitened_basis,
    whitened_basis_by_cholesky,
)
from vitnla.linalg.moments import Affine, LowRankAffine, Moments, relative_error

Weighting = Literal["none", "gram", "cholesky", "centered"]
"""`cholesky` is `gram` by another algorithm: whitening by a Cholesky factor, where `gram` takes eigenvectors of the outputs."""


@dataclass(frozen=True, eq=False)
class LowRankFit(Generic[A]):
    """A linear at one rank.

    Args:
        map: U, V and bias in the dtype of the map that they replace.
        error: that of its output, see `moments.relative_error`; `retained` the share of the energy in the directions kept.
    """

    map: LowRankAffine[A]
    error: float
    retained: float


@dataclass(frozen=True, eq=False)
class LowRankCurve(Generic[A]):
    """The best factors of a linear for every rank, by one of the measures that `svd` knows.

    Args:
        linear: the map as it is.
        moments: what calibration saw at its input.
        basis: orthonormal directions of the output, best first.
        lost: [k] float64, what cutting each direction does to the predictions: sensitivity x its output energy.
    """

    linear: Affine[A]
    moments: Moments[A]
    weighting: Weighting
    basis: OutputBasis[A]
    lost: A

    @classmethod
    def of(cls, linear: Affine[A], moments: Moments[A], weighting: Weighting) -> LowRankCurve[A]:
        """Find the directions, on the device of the weight.

        Raises:
            InputError: a number is not finite.
        """
        moments = moments.beside(linear.weight)
        second_moment = moments.covariance if weighting == "centered" else moments.gram
        basis = _basis(linear.weight, second_moment, weighting)
        # A direction costs its output energy, also where it was chosen without looking at any input.
        energies: Any = energies_along(linear.weight, basis.directions, second_moment)
        return cls(linear, moments, weighting, basis, moments.sensitivity * energies)

    @property
    def losses(self) -> A:
        """[k + 1] float64: what keeping the first 0 ... k directions loses."""
        return tail_energy(self.lost)

    def at(self, rank: int) -> LowRankFit[A]:
        """Return the factors of a rank in 1 ... k, with the mean moved into the bias where the weighting is `centered`."""
        weight = self.linear.weight
        bias: Any = self.linear.bias
        factors = project(weight, self.basis, rank)
        if self.weighting == "centered":
            corrected = as_float64(bias) + bias_correction(weight, factors, self.moments.mean)
            bias = namespace(bias).astype(corrected, bias.dtype)
        wide = Affine(as_float64(factors.U) @ as_float64(factors.V), bias)
        error = relative_error(self.linear, wide, self.moments)
        return LowRankFit(LowRankAffine(factors, bias), error, retained_energy(self.basis.energies, rank))


def _basis(weight: A, second_moment: A, weighting: Weighting) -> OutputBasis[A]:
    if weighting == "none":
        return svd_basis(weight)
    return (whitened_basis_by_cholesky if weighting == "cholesky" else whitened_basis)(weight, second_moment)
