"""Convert uint8 images into the float32 input of a model, with NumPy and Pillow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError
from vitnla.common.preprocessing import PreprocessingConfig
from vitnla.data.image_files import ImageFiles, Images, resampling

if TYPE_CHECKING:
    from PIL.Image import Image


class Preprocessing(PreprocessingConfig):
    """A `PreprocessingConfig` that can be called: it turns uint8 images into the float32 input of the model."""

    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Convert uint8 [N, H, W, C] to float32 [N, channels, image_size, image_size]; grey is repeated where the model takes colour.

        Raises:
            InputError: the images have other channels, or a file is damaged.
        """
        return self.normalise(self.cut(images))

    def pixels(self, images: Images, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Convert uint8 [N, H, W, C] or files to uint8 [N, *size, channels]: cropped to the model's own size, or stretched to another.

        Raises:
            InputError: the images have other channels, or a file is damaged.
        """
        if size == (self.image_size, self.image_size):
            return self.cut(images)
        if isinstance(images, ImageFiles):
            images = images.decode(images.size or max(size), self.channels, self.interpolation)
        self._check_channels(images)
        if images.shape[1:3] != size:
            kernel = resampling(self.interpolation)
            images = _stack([np.asarray(_picture(image).resize(size[::-1], kernel)) for image in images])
        return self._coloured(images)

    def cut(self, images: Images) -> NDArray[np.uint8]:
        """Resize and crop uint8 [N, H, W, C] or files to uint8 [N, image_size, image_size, channels].

        Raises:
            InputError: the images have other channels, or a file is damaged.
        """
        if isinstance(images, ImageFiles):
            if self.fit != "square" and images.size is None and len(images):
                return self._coloured(_stack([self._fitted(image) for image in images.pictures(self.channels)]))
            images = images.decode(images.size or self.image_size, self.channels, self.interpolation)
        self._check_channels(images)
        if len(images) and (images.shape[1:3] != (self.image_size, self.image_size) or self.crops):
            images = _stack([self._fitted(_picture(image)) for image in images])
        return self._coloured(images)

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scale and normalise uint8 [N, H, W, channels] to float32 [N, channels, H, W]."""
        shape = (1, -1, 1, 1)
        scaled = pixels.astype(np.float32).transpose(0, 3, 1, 2) * np.float32(1 / 255)
        shifted = scaled - np.asarray(self.mean, np.float32).reshape(shape)
        return np.asarray(shifted / np.asarray(self.std, np.float32).reshape(shape), np.float32)

    def _check_channels(self, images: NDArray[np.uint8]) -> None:
        if images.shape[-1] not in (1, self.channels):
            raise InputError(
                f"expected images of {self.channels} channels, got {images.shape[-1]}", "choose data that fits the model"
            )

    def _coloured(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Repeat grey images where the model takes colour."""
        return images if images.shape[-1] == self.channels else np.repeat(images, self.channels, axis=-1)

    def _fitted(self, image: Image) -> NDArray[np.uint8]:
        """Resize and crop one image to uint8 [image_size, image_size], or with channels."""
        size = self.resize_size or self.image_size
        width, height = size, size
        if self.fit == "shortest":
            short, long = min(image.size), max(image.size)
            rest = int(size * long / short)
            width, height = (size, rest) if image.width <= image.height else (rest, size)
        resized = image.resize((width, height), resampling(self.interpolation))
        left, top = self._offset(width), self._offset(height)
        return np.asarray(resized.crop((left, top, left + self.image_size, top + self.image_size)), np.uint8)

    def _offset(self, length: int) -> int:
        margin = length - self.image_size
        return margin // 2 if self.crop_rounding == "down" else round(margin / 2)


def _picture(image: NDArray[np.uint8]) -> Image:
    from PIL import Image  # only images whose size differs from the model's need it

    return Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image)


def _stack(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Stack images [H, W] or [H, W, C] into one array [N, H, W, C]."""
    stacked = np.stack(images)
    return stacked if stacked.ndim == 4 else stacked[..., None]
