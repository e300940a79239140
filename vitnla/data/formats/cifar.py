"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their binary version: records of label bytes and a 3 x 32 x 32 image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.formats.text_files import read_lines
from vitnla.data.splits import assemble

CIFAR10_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SIDE, _CHANNELS = 32, 3
_PIXELS = _CHANNELS * _SIDE * _SIDE
_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


def load_cifar10(folder: Path) -> Dataset:
    """Read `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, in `folder` or in its `cifar-10-batches-bin`.

    Raises:
        InputError: a file is missing, truncated or of the python version.
    """
    place = _place(folder, "cifar-10-batches-bin", "test_batch", "cifar-10-binary.tar.gz")
    batches = [place / f"data_batch_{number}.bin" for number in range(1, 6)]
    return assemble("cifar10", CIFAR10_LABELS, _read(batches, 1, 10), _read([place / "test_batch.bin"], 1, 10))


def load_cifar100(folder: Path) -> Dataset:
    """Read `train.bin`, `test.bin` and `fine_label_names.txt`, in `folder` or in its `cifar-100-binary`: the 100 fine classes.

    Raises:
        InputError: a file is missing, truncated or of the python version.
    """
    place = _place(folder, "cifar-100-binary", "test", "cifar-100-binary.tar.gz")
    labels = tuple(read_lines(place / "fine_label_names.txt", "names of classes"))
    if len(labels) != 100:
        raise InputError(f"{place / 'fine_label_names.txt'}: expected 100 names of classes, got {len(labels)}", "copy it again")
    return assemble("cifar100", labels, *(_read([place / f"{half}.bin"], 2, 100) for half in ("train", "test")))


def _place(folder: Path, inside: str, probe: str, archive: str) -> Path:
    """Return the folder of the binary files; `probe` is one file name without suffix, as in the python version."""
    places = (folder, folder / inside)
    for place in places:
        if (place / f"{probe}.bin").is_file():
            return place
    pickled = (folder, *folder.glob("cifar-*-python"), *folder.glob("cifar-*-batches-py"))
    hint = f"get the binary version, {archive}, from {_PAGE}: its files end in .bin and hold raw bytes"
    if any((place / probe).is_file() for place in pickled):
        reason = "pickles are never loaded, since reading one can run any program"
        raise InputError(f"{folder} holds the python version of CIFAR, which is pickles: {reason}", hint)
    raise InputError(f"no {probe}.bin in {' or '.join(map(str, places))}", hint)


def _read(paths: Sequence[Path], label_bytes: int, classes: int) -> Split:
    """Read the records of all files; the label is the last of a record's label bytes (CIFAR-100 has the coarse one first)."""
    size = label_bytes + _PIXELS
    parts = []
    for path in paths:
        try:
            raw = np.fromfile(path, np.uint8)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}", "use the complete files") from error
        if not len(raw) or len(raw) % size:
            found = f"{len(raw):,} bytes"
            raise InputError(f"{path}: expected records of {size:,} bytes each, got {found}", "it is truncated; copy it again")
        records = raw.reshape(-1, size)
        if (highest := records[:, label_bytes - 1].max()) >= classes:
            raise InputError(f"{path}: expected labels below {classes}, got {highest}", "this is another data set")
        parts.append(records)
    whole = np.concatenate(parts)
    images = whole[:, label_bytes:].reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), whole[:, label_bytes - 1].astype(np.int64))
