"""SVHN, cropped digits (Netzer et al. 2011): two MATLAB files. The 531,131 `extra` images are not used."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.splits import assemble

LABELS = tuple("0123456789")
_UNREADABLE = (OSError, EOFError, ValueError, TypeError, IndexError, NotImplementedError, zlib.error, struct.error)
"""Exceptions of loadmat, beside its own error, for a truncated file; which one depends on the position."""


def load_svhn(folder: Path) -> Dataset:
    """Read `train_32x32.mat` and `test_32x32.mat`: `X` uint8 [32, 32, 3, N] and `y` [N, 1] with 10 for the digit 0.

    Raises:
        InputError: a file is missing, truncated, or holds something else.
    """
    return assemble("svhn", LABELS, _read(folder / "train_32x32.mat"), _read(folder / "test_32x32.mat"))


def _read(path: Path) -> Split:
    from scipy.io import loadmat  # half a second to import
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise InputError(f"no {path.name} in {path.parent}", "get the cropped digits from http://ufldl.stanford.edu/housenumbers")
    try:
        arrays = loadmat(path, variable_names=("X", "y"))
        images, labels = np.asarray(arrays["X"]), np.asarray(arrays["y"]).reshape(-1)
    except KeyError as error:
        raise InputError(f"{path}: expected arrays X and y, got no {error.args[0]}", "this is no file of SVHN") from error
    except (MatReadError, *_UNREADABLE) as error:
        raise InputError(f"{path}: expected a MATLAB 5 file, got: {error}", "it may be truncated; copy it again") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (32, 32, 3):
        found = f"{images.dtype} {images.shape}"
        raise InputError(f"{path}: expected X of uint8 (32, 32, 3, N), got {found}", "this is no file of SVHN")
    if labels.dtype.kind not in "iu" or (len(labels) and not 1 <= labels.min() <= labels.max() <= 10):
        found = f"{labels.dtype} {labels.min()} to {labels.max()}"
        raise InputError(f"{path}: expected y of whole numbers from 1 to 10, got {found}", "this is no file of SVHN")
    return Split(np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels.astype(np.int64) % 10)
