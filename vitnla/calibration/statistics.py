"""Calibration statistics: second moments of the input of every encoder linear, in float64; and the images used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.data.image_files import Images
from vitnla.data.preprocessing import Preprocessing
from vitnla.linalg.moments import Moments
from vitnla.model.config import LinearName
from vitnla.model.vit import VisionTransformer

LinearStatistics = Moments[Tensor]
"""Moments over all calibration tokens at the input of one linear, on the CPU."""


@dataclass(frozen=True)
class Samples:
    """The calibration images, for methods that run the model on them again."""

    images: Images
    preprocessing: Preprocessing

    @torch.no_grad()
    def embedded(self, model: VisionTransformer, count: int | None = None, batch_size: int = 32) -> Tensor:
        """Return the model's embedded tokens [N, tokens, dim] of the first `count` images (None is all), on its device."""
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
    """The calibration images; None for moments read from a file."""

    def require_samples(self) -> Samples:
        """Return the images.

        Raises:
            InputError: the statistics come without images.
        """
        if self.samples is None:
            raise InputError("expected calibration images beside their moments, got none", "calibrate with cached_statistics")
        return self.samples
