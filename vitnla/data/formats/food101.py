"""Food-101 (Bossard et al. 2014): `images/CLASS/ID.jpg`, and lists of training and test images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.formats.text_files import read_lines
from vitnla.data.image_files import ImageFiles
from vitnla.data.splits import assemble


def load_food101(folder: Path) -> Dataset:
    """Read `meta/classes.txt`, `meta/train.txt` and `meta/test.txt` in `folder` or in its `food-101`; images stay on disk.

    Raises:
        InputError: a list or an image that it names is missing, or a line names no class.
    """
    root = folder if (folder / "meta").is_dir() else folder / "food-101"
    classes = read_lines(root / "meta" / "classes.txt", "names of classes")
    numbers = {name: number for number, name in enumerate(classes)}
    return assemble("food101", tuple(classes), *(_read(root, half, numbers) for half in ("train", "test")))


def _read(root: Path, half: str, numbers: Mapping[str, int]) -> Split:
    path = root / "meta" / f"{half}.txt"
    names = []
    labels = []
    for line in read_lines(path, "CLASS/ID"):
        label = line.partition("/")[0]
        if label not in numbers:
            raise InputError(f"{path}: expected CLASS/ID with a class of classes.txt, got '{line}'", "copy the lists again")
        names.append(f"images/{line}.jpg")
        labels.append(numbers[label])
    if missing := next((name for name in names if not (root / name).is_file()), None):
        raise InputError(f"{path} names {missing}, which is not in {root}", "unpack the images again")
    return Split(ImageFiles(root, tuple(names)), np.array(labels, np.int64))
