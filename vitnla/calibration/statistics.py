"""What calibration measures: second moments of the input of every encoder linear, in float64; and the images it saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.data.image_files import Images
from vitnla.data.preprocessing import Preprocessing
from vitnla.linalg.moments import Moments
from vitnla.linalg.torch.bridge import to_array
from vitnla.model.config import LinearName
from vitnla.model.vit import VisionTransformer


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

    @property
    def moments(self) -> Moments:
        """The same as arrays, without a copy."""
        return Moments(to_array(self.gram), to_array(self.mean), self.tokens, self.sensitivity)


@dataclass(frozen=True)
class Samples:
    """The calibration images, for methods that run the model on them again."""

    images: Images
    preprocessing: Preprocessing

    @torch.no_grad()
    def embedded(self, model: VisionTransformer, count: int | None = None, batch_size: int = 32) -> Tensor:
        """Tokens [N, tokens, dim] that the model makes of the first `count` images, on its device; all of them where None."""
        parameter = next(model.parameters())
        starts = range(0, min(len(self.images), count or len(self.images)), batch_size)
        ends = (min(start + batch_size, count or len(self.images)) for start in starts)
        batches = (self.preprocessing(self.images[start:end]) for start, end in zip(starts, ends, strict=True))
        return torch.cat([model.embed(torch.from_numpy(batch).to(parameter)) for batch in batches])


@dataclass(frozen=True)
class Statistics:
    """Moments of every encoder linear, from one pass over `images` calibration images, `tokens` tokens in all."""

    linears: Mapping[tuple[int, LinearName], LinearStatistics]
    images: int
    tokens: int
    samples: Samples | None = None
    """The images themselves; moments read from a file by themselves come without."""

    def require_samples(self) -> Samples:
        """The images.

        Raises:
            InputError: these are moments without them.
        """
        if self.samples is None:
            raise InputError("expected calibration images beside their moments, got none", "calibrate with cached_statistics")
        return self.samples
