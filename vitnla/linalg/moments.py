"""Second moments of what a linear map is given, and the error of a map that takes its place."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from typing import Any, Generic

from vitnla.linalg.arrays import A, as_float64, beside
from vitnla.linalg.low_rank import Factors, output_error


@dataclass(frozen=True, eq=False)
class Moments(Generic[A]):
    """Moments over `tokens` inputs x of one linear.

    Args:
        gram: [in, in] float64, the mean of x xT; symmetric, positive semidefinite, often singular.
        mean: [in] float64.
        tokens: number of inputs summed over (images x sequence length).
        sensitivity: Fisher information of the predicted class about one element of this linear's output at one token, on
            average: how much an output error of unit energy changes the predictions, in a unit that all linears share.
    """

    gram: A
    mean: A
    tokens: int
    sensitivity: float

    @property
    def covariance(self) -> A:
        """[in, in] float64: gram - mean meanT."""
        mean: Any = self.mean
        covariance: A = self.gram - mean[:, None] * mean
        return covariance

    def beside(self, other: A) -> Moments[A]:
        """Return the same on the device of an array; where it is there already, without a copy."""
        return replace(self, gram=beside(self.gram, other), mean=beside(self.mean, other))


@dataclass(frozen=True, eq=False)
class Affine(Generic[A]):
    """y = W x + b: weight [out, in], bias [out]."""

    weight: A
    bias: A

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) features."""
        weight: Any = self.weight
        return int(weight.shape[0]), int(weight.shape[1])


@dataclass(frozen=True, eq=False)
class LowRankAffine(Generic[A]):
    """y = U (V x) + bias, bias [out]."""

    factors: Factors[A]
    bias: A


def relative_error(old: Affine[A], new: Affine[A], moments: Moments[A]) -> float:
    """Return the root of the mean squared output error over that of predicting the mean output, both exact from the moments.

    Args:
        old: the map as it was.
        new: what takes its place, in terms of the same inputs.
        moments: those of the inputs.
    """
    weight, covariance = as_float64(old.weight), moments.covariance
    change = weight - as_float64(new.weight)
    mean_error = change @ as_float64(moments.mean) + as_float64(old.bias) - as_float64(new.bias)
    error = output_error(change, covariance) + float((mean_error**2).sum())
    return math.sqrt(error / max(output_error(weight, covariance), sys.float_info.min))
