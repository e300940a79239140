"""Schema of the preprocessing that a model needs: resize, crop, scale and normalise. No array work; see `vitnla.data.preprocessing`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vitnla.common.schema import Record

Interpolation = Literal["nearest", "bilinear", "bicubic"]
"""Pillow's resampling kernels, by name."""
Fit = Literal["square", "squash", "shortest"]
"""Resizing before the crop. `square`: the central square of a file, resized; `squash`: all of it, resized to a square; `shortest`: all
of it, resized until its shorter edge fits. They differ for images that are not square."""
CropRounding = Literal["down", "even"]
"""Rounding of half a pixel of the crop's offset: transformers rounds down, torchvision to even."""


class PreprocessingConfig(Record):
    """Resize, crop the centre, scale to [0, 1], then (x - mean) / std per channel."""

    image_size: Annotated[int, Field(ge=1)]
    """Side of the square input of the model, pixels."""
    mean: tuple[float, ...]
    """Per channel, in [0, 1]."""
    std: tuple[float, ...]
    """Per channel, in [0, 1]."""
    interpolation: Interpolation = "bilinear"
    fit: Fit = "square"
    resize_size: Annotated[int, Field(ge=1)] | None = None
    """Side, or shorter side, to resize to before the centre of `image_size` is cropped; `None` is `image_size` itself."""
    crop_rounding: CropRounding = "down"

    @model_validator(mode="after")
    def _check_resize_size(self) -> Self:
        if self.resize_size is not None and self.resize_size < self.image_size:
            raise ValueError(f"resize_size must be at least image_size {self.image_size}, but got {self.resize_size}")
        if self.resize_size is not None and self.fit == "square":
            raise ValueError("resize_size needs fit 'squash' or 'shortest', but got 'square'")
        return self

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return len(self.mean)

    @property
    def crops(self) -> bool:
        """True if an image is resized to more pixels than the crop keeps."""
        return self.resize_size not in (None, self.image_size)
