"""Convert reference inputs back into the pictures that an example shows and is checked with."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from runtime.apps.settings import Settings
from runtime.bundle.schema import Bundle
from vitnla.common.errors import InputError

_LEVELS = 0.01
"""Largest distance of a restored pixel from a whole grey level; float32 rounding is far below."""


def reference_pictures(bundle: Bundle, settings: Settings) -> NDArray[np.uint8]:
    """Return the pictures, uint8 [N, H, W, C], that an app preprocesses into the reference inputs.

    Where an app crops, a picture has the size before the crop, its edges repeated, so that the crop is exact.

    Raises:
        InputError: the reference inputs are not what the bundle's preprocessing makes of pixels.
    """
    images, _ = bundle.reference()
    pixels = images if images.dtype == np.uint8 else _restored(bundle, images, settings)
    resizing = settings.resizing
    margins = [whole - kept for whole, kept in zip(resizing.to, resizing.crop, strict=True)]
    before = [margin // 2 if resizing.crop_rounding == "down" else round(margin / 2) for margin in margins]
    around = [(first, margin - first) for first, margin in zip(before, margins, strict=True)]
    return np.pad(pixels, [(0, 0), *around, (0, 0)], mode="edge").astype(np.uint8)


def widest_margin(logits: NDArray[np.float32]) -> int:
    """Return the index of the row of [N, classes] with the widest margin of the first class over the second: rounding cannot change it."""
    ordered = np.sort(logits, axis=-1)
    return int(np.argmax(ordered[:, -1] - ordered[:, -2])) if ordered.shape[-1] > 1 else 0


def png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture, uint8 [H, W, C], grey or RGB, as the bytes of a PNG file."""
    from PIL import Image

    stream = BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(stream, "PNG")
    return stream.getvalue()


def _restored(bundle: Bundle, images: NDArray[np.float32 | np.uint8], settings: Settings) -> NDArray[np.uint8]:
    """Convert normalised images [N, C, H, W] back to their pixels, uint8 [N, H, W, C]."""
    mean, std = (np.reshape(numbers, (1, -1, 1, 1)) for numbers in (settings.mean, settings.std))
    levels = (images.astype(np.float64) * std + mean) * 255
    whole = levels.round().clip(0, 255)
    if not np.abs(levels - whole).max() <= _LEVELS:
        message = f"{bundle.folder}: the reference images are not pixels that its preprocessing scaled"
        raise InputError(message, "export the bundle again")
    return np.ascontiguousarray(whole.astype(np.uint8).transpose(0, 2, 3, 1))
