"""Fashion-MNIST (Xiao et al. 2017) from its four IDX files, as in Debian's package dataset-fashion-mnist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.formats.idx import read_idx
from vitnla.data.splits import carve

LABELS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

# The 60,000 training images in file order: weights are fitted on the first 58,000 (the last thousand of which also
# calibrate decompositions), and the choice of epoch is made on the 2,000 that no weight has seen.
HELD_OUT, CALIBRATION = 2_000, 1_000


def load_fashion_mnist(folder: Path) -> Dataset:
    """Read `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]` from a folder.

    Raises:
        InputError: a file is missing, damaged, or disagrees with the others.
    """
    images, labels = _read_pair(folder, "train")
    if len(labels) <= HELD_OUT + CALIBRATION:
        raise InputError(
            f"{folder}: expected more than {HELD_OUT + CALIBRATION} training images, got {len(labels)}", "use the complete files"
        )
    splits = carve(Split(images, labels), HELD_OUT, CALIBRATION)
    return Dataset("fashion-mnist", LABELS, {**splits, "test": Split(*_read_pair(folder, "t10k"))})


def _read_pair(folder: Path, prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1:
        raise InputError(
            f"{folder}: expected {prefix} images [N, H, W] and labels [N], got {images.shape} and {labels.shape}",
            "are the files swapped?",
        )
    if labels.size and labels.max() >= len(LABELS):
        raise InputError(
            f"{folder}: expected {prefix} labels below {len(LABELS)}, got {labels.max()}", "this is not Fashion-MNIST"
        )
    return images[..., None], labels.astype(np.int64)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"no {name} or {name}.gz in {folder}",
        "on Debian: apt install dataset-fashion-mnist, then fashion-mnist:/usr/share/datasets/fashion-mnist",
    )
