"""Second moments of what a linear map is given, and the error of a map that takes its place."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np

from vitnla.linalg.low_rank import output_error
from vitnla.linalg.matrices import Float64, Matrix


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments over `tokens` inputs x of one linear.

    Args:
        gram: [in, in] float64, the mean of x xT.
        mean: [in] float64.
        sensitivity: how much an output error of unit energy changes the predictions, in a unit that all linears share.
    """

    gram: Float64
    mean: Float64
    tokens: int
    sensitivity: float

    @property
    def covariance(self) -> Float64:
        """[in, in] float64: gram - mean meanT."""
        return self.gram - np.outer(self.mean, self.mean)


@dataclass(frozen=True, eq=False)
class Affine:
    """y = W x + b: weight [out, in], bias [out]."""

    weight: Matrix
    bias: Matrix


def relative_error(old: Affine, new: Affine, moments: Moments) -> float:
    """Root of the mean squared output error over that of predicting the mean output, both exact from the moments.

    Args:
        old: the map as it was.
        new: what takes its place, in terms of the same inputs.
        moments: those of the inputs.
    """
    weight, bias = old.weight.astype(np.float64), old.bias.astype(np.float64)
    change = weight - new.weight
    mean_error = change @ moments.mean + bias - new.bias
    error = output_error(change, moments.covariance) + float(np.square(mean_error).sum())
    return math.sqrt(error / max(output_error(weight, moments.covariance), sys.float_info.min))
