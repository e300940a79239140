"""Any images at all, as one NumPy archive."""

from __future__ import annotations

from pathlib import Path
from typing import get_args
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError
from vitnla.data.carve import assemble, assemble_whole
from vitnla.data.dataset import Dataset, Split, SplitName

_HINT = "write it with numpy.savez(FILE, images=..., labels=..., splits=...)"


def load_npz(path: Path) -> Dataset:
    """Read `images` uint8 [N, H, W] or [N, H, W, C], whole `labels` [N] from 0, and, if there, `splits` [N].

    `splits` are strings: train, validation, calibration or test. Without validation or calibration images both are taken from
    the training images; without `splits` a fifth of the images, always the same, is for testing. Classes are called by number.

    Raises:
        InputError: the file is no archive or is damaged, or an array is missing, pickled, or of another shape or type.
    """
    arrays = _read(path)
    images, numbers = _images(path, arrays), _labels(path, arrays)
    labels = tuple(map(str, range(int(numbers.max(initial=0)) + 1)))
    whole = Split(images, numbers)
    if "splits" not in arrays:
        return assemble_whole("npz", labels, whole)
    splits = _splits(path, arrays["splits"], whole)
    if "train" not in splits or {"validation", "calibration"} <= splits.keys():
        return Dataset("npz", labels, splits)
    if "test" not in splits:
        raise InputError(f"{path}: expected splits with 'test' beside 'train', got no 'test'", _HINT)
    return Dataset("npz", labels, {**assemble("npz", labels, splits["train"], splits["test"]).splits, **_given(splits)})


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in ("images", "labels", "splits") if name in archive}
    except (OSError, ValueError, EOFError, BadZipFile, ZlibError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected a NumPy archive of plain arrays, got: {error}", _HINT) from error
