"""Preprocessing as constant arrays, for graphs that take raw pixels.

Resizing to a fixed size is linear, so it is two matrix products with the weights of Pillow's own filter. ONNX's `Resize` with
`antialias` would be one operator, but its filter differs between runtimes: on noise, ONNX Runtime 1.32 is up to 15 grey
levels away from Pillow, and TensorRT for RTX refuses it. The products are within one grey level, the effect of Pillow's rounding to
whole levels between and after its two passes; they do not round, so runtimes cannot round a half differently.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitnla.common.preprocessing import Interpolation
from vitnla.data.image_files import resampling
from vitnla.data.preprocessing import Preprocessing

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class PixelMap:
    """Pixels x [C, H, W] of 0 to 255 -> (rows @ x @ columns) * scale + shift, [C, size, size].

    Args:
        rows: [size, H]; `None` where the height is unchanged.
        columns: [W, size]; `None` where the width is unchanged.
        rows_first: order of the products. It matters only with `clips`.
        clips: true to clip the result of each product to 0 to 255, since the filter can overshoot.
        scale: [C, 1, 1].
        shift: [C, 1, 1].
    """

    rows: Matrix | None
    columns: Matrix | None
    rows_first: bool
    clips: bool
    scale: Matrix
    shift: Matrix

    @property
    def products(self) -> tuple[tuple[str, Matrix], ...]:
        """Return the matrix products in order, as `rows` or `columns` and the matrix."""
        both = (("columns", self.columns), ("rows", self.rows))
        return tuple((name, matrix) for name, matrix in (both[::-1] if self.rows_first else both) if matrix is not None)


def pixel_map(preprocessing: Preprocessing, size: tuple[int, int]) -> PixelMap:
    """Return the effect of `preprocessing` on uint8 images of (height, width) `size`, as arrays."""
    side, kind = preprocessing.image_size, preprocessing.interpolation
    height, width = size
    std = np.asarray(preprocessing.std, np.float64).reshape(-1, 1, 1)
    mean = np.asarray(preprocessing.mean, np.float64).reshape(-1, 1, 1)
    resized = size != (side, side)
    return PixelMap(
        rows=None if height == side else np.ascontiguousarray(_columns(height, side, kind).T),
        columns=None if width == side else _columns(width, side, kind),
        rows_first=resized and kind == "bicubic" and _rows_first(size, side, kind),
        clips=resized and kind == "bicubic",
        scale=(1 / (255 * std)).astype(np.float32),
        shift=(-mean / std).astype(np.float32),
    )


def _columns(old: int, new: int, interpolation: Interpolation) -> Matrix:
    """Return Pillow's weights [old, new]: a resized row of the identity is one pixel's contribution to each new one."""
    from PIL import Image

    identity = Image.fromarray(np.eye(old, dtype=np.float32))  # floats are neither rounded nor clipped
    return np.asarray(identity.resize((new, old), resampling(interpolation)), np.float32)


def _rows_first(size: tuple[int, int], side: int, interpolation: Interpolation) -> bool:
    """Determine which pass Pillow runs first, by a trial on black and white noise; it depends on sizes and version."""
    from PIL import Image

    noise = 255 * np.random.default_rng(0).integers(0, 2, size, np.uint8)
    wanted = np.asarray(Image.fromarray(noise).resize((side, side), resampling(interpolation)), np.float32)
    rows, columns = _columns(size[0], side, interpolation).T, _columns(size[1], side, interpolation)
    by_columns = rows @ (noise @ columns).clip(0, 255)
    by_rows = (rows @ noise).clip(0, 255) @ columns
    return bool(np.abs(by_rows.clip(0, 255) - wanted).mean() < np.abs(by_columns.clip(0, 255) - wanted).mean())
