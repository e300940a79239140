"""`vitnla.linalg.low_rank_curve` for linears of a model: one linear as a product of two thin ones, at every rank."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vitnla.calibration.statistics import LinearStatistics
from vitnla.linalg import low_rank_curve as core
from vitnla.linalg.low_rank import Factors as ArrayFactors
from vitnla.linalg.low_rank_curve import Weighting
from vitnla.linalg.torch import Factors
from vitnla.linalg.torch.bridge import to_array, to_tensor
from vitnla.methods.parts.model_edit import LowRank
from vitnla.methods.parts.report_rows import affine


@dataclass(frozen=True, eq=False)
class LowRankCurve:
    """The best factors of a linear for every rank, by one of the measures that `svd` knows."""

    linear: nn.Linear
    curve: core.LowRankCurve

    @classmethod
    def of(cls, linear: nn.Linear, moments: LinearStatistics, weighting: Weighting) -> LowRankCurve:
        """Find the directions.

        Raises:
            InputError: a number is not finite.
        """
        return cls(linear, core.LowRankCurve.of(affine(linear), moments.moments, weighting))

    @property
    def losses(self) -> Tensor:
        """[k + 1] float64: what keeping the first 0 ... k directions loses."""
        return to_tensor(self.curve.losses, self.linear.weight)

    def at(self, rank: int) -> LowRank:
        """The factors of a rank in 1 ... k, with the mean moved into the bias where the weighting is `centered`."""
        found, weight = self.curve.at(rank), self.linear.weight
        u, v, bias = (to_tensor(part, weight, weight.dtype) for part in (found.factors.U, found.factors.V, found.bias))
        return LowRank(Factors(u, v), bias)

    def relative_error(self, new: LowRank) -> float:
        """That of the output, see `vitnla.linalg.moments.relative_error`."""
        factors = ArrayFactors(to_array(new.factors.U), to_array(new.factors.V))
        return self.curve.relative_error(core.LowRankMap(factors, to_array(new.bias)))

    def retained(self, rank: int) -> float:
        """Share of the energy in the directions kept."""
        return self.curve.retained(rank)
