"""Image files that stay on disk and are decoded on demand, for data sets too large for one array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError
from vitnla.common.preprocessing import Interpolation

if TYPE_CHECKING:
    from PIL.Image import Image, Resampling

T = TypeVar("T")
_PLAIN = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_AVIF = ".avif"
_READ_BUFFER = 1 << 16


@dataclass(frozen=True)
class ImageFiles:
    """N image files, of any shapes, in order.

    Slices and index arrays select files without decoding. Decoding crops the central square of each image and
    resizes it. It is repeated for every pass, in one thread.

    Args:
        root: folder of the data set.
        names: paths below `root`, with forward slashes.
        size: side of the decoded images in pixels; `None` takes the model's size.
    """

    root: Path
    names: tuple[str, ...]
    size: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: slice | NDArray[np.int64]) -> ImageFiles:
        names = self.names[index] if isinstance(index, slice) else tuple(self.names[i] for i in index.tolist())
        return ImageFiles(self.root, names, self.size)

    def decode(self, size: int, channels: int, interpolation: Interpolation) -> NDArray[np.uint8]:
        """Return the central squares as uint8 [N, size, size, channels], with 1 channel for grey or 3 for colour.

        Raises:
            InputError: a file is missing, truncated or no image; names it.
        """
        if not self.names:
            return np.empty((0, size, size, channels), np.uint8)
        kernel = resampling(interpolation)
        pixels = [_decode(self.root / name, size, _mode(channels), kernel) for name in self.names]
        return np.stack(pixels).reshape(len(pixels), size, size, -1)

    def pictures(self, channels: int) -> Iterator[Image]:
        """Yield the uncropped images, in their own shapes, grey for 1 channel or RGB.

        Raises:
            InputError: a file is missing, truncated or no image; names it.
        """
        for name in self.names:
            yield _open(self.root / name, lambda image: image.convert(_mode(channels)))

    def contents(self) -> Iterator[bytes]:
        """Yield the bytes of every file, in order.

        Raises:
            InputError: a file cannot be read.
        """
        for name in self.names:
            try:
                yield (self.root / name).read_bytes()
            except OSError as error:
                raise InputError(f"cannot read {self.root / name}: {error.strerror or error}", "copy the file again") from error


Images = NDArray[np.uint8] | ImageFiles
"""uint8 [N, H, W, C] in memory, or files of N images. `Preprocessing` takes both; both have a length and slices."""


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of image files that the installed Pillow reads."""
    from PIL import features

    return _PLAIN | {_AVIF} if features.check("avif") else _PLAIN


def find_images(folder: Path) -> tuple[list[str], Counter[str]]:
    """Find image files in `folder` recursively, and count the other files; hidden ones are skipped.

    Returns:
        Paths relative to `folder`, sorted, and the number of files of each other suffix.
    """
    found: list[str] = []
    skipped = Counter[str]()
    for file in sorted(folder.rglob("*")):
        path = file.relative_to(folder)
        if any(part.startswith(".") for part in path.parts) or not file.is_file():
            continue
        if file.suffix.lower() in image_suffixes():
            found.append(path.as_posix())
        else:
            skipped[file.suffix.lower() or "no suffix"] += 1
    return found, skipped


def skipped_note(root: Path, skipped: Counter[str]) -> str | None:
    """Return a note on files that were not recognised as images; `None` where there are none."""
    if not skipped:
        return None
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in skipped.most_common())
    note = f"{root}: {skipped.total():,} files are no images and were skipped: {kinds}"
    return f"{note} (this Pillow reads no AVIF; Pillow 11.3 or newer does)" if _AVIF in skipped else note


def resampling(interpolation: Interpolation) -> Resampling:
    """Return Pillow's filter of that name."""
    from PIL.Image import Resampling  # only data that are resized need it

    return {"nearest": Resampling.NEAREST, "bilinear": Resampling.BILINEAR, "bicubic": Resampling.BICUBIC}[interpolation]


def _mode(channels: int) -> Literal["L", "RGB"]:
    return "L" if channels == 1 else "RGB"


def _decode(path: Path, size: int, mode: Literal["L", "RGB"], kernel: Resampling) -> NDArray[np.uint8]:
    def central_square(image: Image) -> NDArray[np.uint8]:
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # Cropped first: `resize` with a box would blend in pixels from outside it.
        square = image.crop((left, top, left + side, top + side))
        return np.asarray(square.convert(mode).resize((size, size), kernel), np.uint8)

    return _open(path, central_square)


def _open(path: Path, use: Callable[[Image], T]) -> T:
    from PIL import Image

    try:
        with path.open("rb", buffering=_READ_BUFFER) as stream, Image.open(stream) as image:
            return use(_eight_bits(image))
    # Pillow's decoders raise SyntaxError for broken headers, ValueError for impossible sizes and many others for broken contents.
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, MemoryError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: expected a complete image file, got: {error}", "copy the file again, or remove it") from error


def _eight_bits(image: Image) -> Image:
    """Convert 16-bit grey to its upper 8 bits: Pillow's own conversion would clip it to white."""
    from PIL.Image import fromarray

    if image.mode.startswith("I;16"):
        return fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"32 bits a channel (mode {image.mode}), whose white is unknown")
    return image
