"""From uint8 pixels to what a model eats. Stored in every checkpoint's bundle; NumPy and Pillow only."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.data.image_files import ImageFiles, Images, Interpolation, resampling


class Preprocessing(Record):
    """Resize to a square, scale to [0, 1], then (x - mean) / std per channel."""

    image_size: Annotated[int, Field(ge=1)]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"

    @property
    def channels(self) -> int:
        """Channels of the model's input."""
        return len(self.mean)

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """uint8 [N, H, W, C] -> float32 [N, channels, image_size, image_size]; grey is repeated where colour is wanted.

        Raises:
            InputError: the images have other channels, or a file is damaged.
        """
        return self.normalise(self.pixels(images, (self.image_size, self.image_size)))

    def pixels(self, images: Images, size: tuple[int, int]) -> NDArray[np.uint8]:
        """uint8 [N, H, W, C] -> uint8 [N, *size, channels], resized and grey repeated where that is needed.

        Raises:
            InputError: the images have other channels, or a file is damaged.
        """
        if isinstance(images, ImageFiles):
            images = images.decode(images.size or max(size), self.channels, self.interpolation)
        if images.shape[-1] not in (1, self.channels):
            raise InputError(
                f"expected images of {self.channels} channels, got {images.shape[-1]}", "choose data that fits the model"
            )
        if images.shape[1:3] != size:
            images = _resize(images, size, self.interpolation)
        return images if images.shape[-1] == self.channels else np.repeat(images, self.channels, axis=-1)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, H, W, channels] -> float32 [N, channels, H, W]."""
        shape = (1, -1, 1, 1)
        scaled = pixels.astype(np.float32).transpose(0, 3, 1, 2) * np.float32(1 / 255)
        shifted = scaled - np.asarray(self.mean, np.float32).reshape(shape)
        return np.asarray(shifted / np.asarray(self.std, np.float32).reshape(shape), np.float32)


def _resize(images: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation) -> NDArray[np.uint8]:
    from PIL import Image  # only models whose size differs from the data's need it

    kernel = resampling(interpolation)
    resized = [np.asarray(Image.fromarray(image.squeeze()).resize(size[::-1], kernel)) for image in images]
    return np.stack(resized).reshape(len(images), *size, images.shape[-1])
