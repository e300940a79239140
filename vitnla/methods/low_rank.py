"""One linear as a product of two thin ones, at every rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vitnla.calibration.statistics import LinearStatistics
from vitnla.linalg import (
    OutputBasis,
    bias_correction,
    cholesky_basis,
    energies_along,
    output_basis,
    project,
    retained_energy,
    svd_basis,
)
from vitnla.methods.rows import relative_error
from vitnla.methods.surgery import LowRank

Weighting = Literal["none", "gram", "cholesky", "centered"]
"""`cholesky` is `gram` by another algorithm: whitening by a Cholesky factor, where `gram` takes eigenvectors of the outputs."""


@dataclass(frozen=True, eq=False)
class LowRankCurve:
    """The best factors of a linear for every rank, by one of the measures that `svd` knows.

    Args:
        moments: what calibration saw at its input.
        basis: orthonormal directions of the output, best first.
        lost: [k] float64, what cutting each direction does to the predictions: sensitivity x its output energy.
    """

    linear: nn.Linear
    moments: LinearStatistics
    weighting: Weighting
    basis: OutputBasis
    lost: Tensor

    @classmethod
    def of(cls, linear: nn.Linear, moments: LinearStatistics, weighting: Weighting) -> LowRankCurve:
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
    def losses(self) -> Tensor:
        """[k + 1] float64: what keeping the first 0 ... k directions loses."""
        return torch.cat([self.lost.flip(0).cumsum(0).flip(0), self.lost.new_zeros(1)])

    def at(self, rank: int) -> LowRank:
        """The factors of a rank in 1 ... k, with the mean moved into the bias where the weighting is `centered`."""
        weight, bias = self.linear.weight.detach(), self.linear.bias.detach()
        factors = project(weight, self.basis, rank)
        if self.weighting == "centered":
            bias = (bias.double() + bias_correction(weight, factors, self.moments.mean)).to(bias.dtype)
        return LowRank(factors, bias)

    def relative_error(self, new: LowRank) -> float:
        """That of the output, see `rows.relative_error`."""
        return relative_error(self.linear, new.factors.U.double() @ new.factors.V.double(), new.bias.double(), self.moments)

    def retained(self, rank: int) -> float:
        """Share of the energy in the directions kept."""
        return retained_energy(self.basis.energies, rank)


def _basis(weight: Tensor, second_moment: Tensor, weighting: Weighting) -> OutputBasis:
    if weighting == "none":
        return svd_basis(weight)
    return cholesky_basis(weight, second_moment) if weighting == "cholesky" else output_basis(weight, second_moment)
