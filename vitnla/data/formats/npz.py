"""Images of any kind, as one NumPy archive."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.splits import assemble, assemble_whole

_HINT = "write it with numpy.savez(FILE, images=..., labels=..., splits=...)"


def load_npz(path: Path) -> Dataset:
    """Read `images` uint8 [N, H, W] or [N, H, W, C], whole `labels` [N] from 0, and `splits` [N] of "train" and "test".

    Without `splits` a fixed fifth of the images is for testing. Classes are named by their numbers.

    Raises:
        InputError: the file is no archive or is damaged, or an array is missing, pickled, or of another shape or type.
    """
    arrays = _read(path)
    images, numbers = _images(path, arrays), _labels(path, arrays)
    labels = tuple(map(str, range(int(numbers.max(initial=0)) + 1)))
    if "splits" not in arrays:
        return assemble_whole("npz", labels, Split(images, numbers))
    splits = arrays["splits"]
    if splits.shape != numbers.shape or not np.isin(splits, ("train", "test")).all():
        found = f"{splits.shape} of {', '.join(map(str, np.unique(splits)[:5]))}"
        raise InputError(f"{path}: expected splits {numbers.shape} of 'train' and 'test', got {found}", _HINT)
    return assemble("npz", labels, *(Split(images[splits == half], numbers[splits == half]) for half in ("train", "test")))


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise InputError(f"{path}: expected a NumPy archive, got a single array", _HINT)
        with archive:
            return {name: archive[name] for name in ("images", "labels", "splits") if name in archive}
    # A damaged member shows as any of these, an array of objects (pickled) as a ValueError.
    except (OSError, EOFError, ValueError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: expected a NumPy archive of plain arrays, got: {error}", _HINT) from error


def _images(path: Path, arrays: dict[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
    images = arrays.get("images")
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4):
        found = "none" if images is None else f"{images.dtype} {images.shape}"
        raise InputError(f"{path}: expected images of uint8 [N, H, W] or [N, H, W, C], got {found}", _HINT)
    pixels = images.astype(np.uint8, copy=False)
    return pixels if pixels.ndim == 4 else pixels[..., None]


def _labels(path: Path, arrays: dict[str, NDArray[np.generic]]) -> NDArray[np.int64]:
    labels = arrays.get("labels")
    if labels is None or labels.dtype.kind not in "iu" or labels.ndim != 1:
        found = "none" if labels is None else f"{labels.dtype} {labels.shape}"
        raise InputError(f"{path}: expected labels of whole numbers [N], got {found}", _HINT)
    numbers = labels.astype(np.int64)
    if len(numbers) and numbers.min() < 0:
        raise InputError(f"{path}: expected labels from 0, got {numbers.min()}", _HINT)
    return numbers
