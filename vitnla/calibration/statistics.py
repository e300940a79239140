"""What calibration measures: second moments of the input of every encoder linear, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from vitnla.model.config import LinearName


@dataclass(frozen=True)
class LinearStatistics:
    """Moments over all `tokens` calibration tokens x that one linear saw.

    Args:
        gram: [in, in] float64, sum of x xT divided by `tokens`; symmetric, positive semidefinite, often singular.
        mean: [in] float64.
        tokens: number of tokens summed over (images x sequence length).
        sensitivity: Fisher information of the predicted class about one element of this linear's output at one token, on
            average: how much an output error of unit energy here changes the predictions (see `collect`).
    """

    gram: Tensor
    mean: Tensor
    tokens: int
    sensitivity: float

    @property
    def covariance(self) -> Tensor:
        """[in, in] float64: gram - mean meanT."""
        return self.gram - self.mean.outer(self.mean)


@dataclass(frozen=True)
class Statistics:
    """Moments of every encoder linear, from one pass over `images` calibration images, `tokens` tokens in all."""

    linears: Mapping[tuple[int, LinearName], LinearStatistics]
    images: int
    tokens: int
