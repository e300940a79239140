"""The packaged data: part of Fashion-MNIST, for calibration, validation and testing."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.formats.fashion_mnist import LABELS

ASSET = Path(__file__).parent.parent / "assets" / "demo-data.npz"
SPLITS = ("calibration", "validation", "test")


def load_demo(path: Path = ASSET) -> Dataset:
    """Load the packaged splits: 1,000 calibration and 1,000 validation images of the training set, and all 10,000 test images."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            splits = {name: Split(arrays[f"{name}_images"], arrays[f"{name}_labels"].astype(np.int64)) for name in SPLITS}
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise InputError(f"the packaged demo data at {path} cannot be read: {error}", "install vitdeploy again") from error
    return Dataset("demo", LABELS, splits)


def pack_demo(source: Dataset, path: Path, count: int = 1_000) -> None:
    """Write the packaged file from the full Fashion-MNIST (see scripts/pack_demo.py)."""
    chosen = {name: source.split(name) if name == "test" else source.split(name).head(count) for name in SPLITS}
    arrays = {f"{name}_images": split.pixels() for name, split in chosen.items()}
    arrays |= {f"{name}_labels": split.labels.astype(np.uint8) for name, split in chosen.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, **arrays)
