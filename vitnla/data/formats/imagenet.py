"""ImageNet-1k (Russakovsky et al. 2015): a folder per class (wnid), or the flat validation images as they are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.formats.class_folders import class_images, class_names
from vitnla.data.formats.synsets import SYNSETS
from vitnla.data.formats.text_files import read_lines
from vitnla.data.image_files import ImageFiles
from vitnla.data.splits import assemble

SOLUTION = "LOC_val_solution.csv"
_KAGGLE = "ILSVRC/Data/CLS-LOC"


def load_imagenet(folder: Path) -> Dataset:
    """Load `train/WNID/` and `val/WNID/`, in `folder` or in its `ILSVRC/Data/CLS-LOC`; images stay on disk.

    The published test images have no labels, so `val` is the test split here. `LOC_synset_mapping.txt` names the classes and
    sets their order; without it they are the sorted folders. A flat `val` needs `LOC_val_solution.csv`. Where `train` is
    absent there is only a test split.

    Raises:
        InputError: `val` or a list that it needs is missing, or a class is unknown or empty.
    """
    below = "" if (folder / "val").is_dir() else f"{_KAGGLE}/"
    if not (folder / below / "val").is_dir():
        raise InputError(f"{folder}: expected train and val, got neither val nor {_KAGGLE}/val", "the test split is made of val")
    has_train = (folder / below / "train").is_dir()
    wnids, labels = _classes(folder, f"{below}train" if has_train else f"{below}val")
    is_flat = not class_names(folder / below / "val")
    test = _flat(folder, f"{below}val", wnids) if is_flat else class_images(folder, f"{below}val", wnids)
    if not has_train:
        return Dataset("imagenet", labels, {"test": test})
    return assemble("imagenet", labels, class_images(folder, f"{below}train", wnids), test)


def _classes(folder: Path, listed: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the wnids in the order of the labels, and their names: the first synonym."""
    if (folder / SYNSETS).is_file():
        lines = [line.partition(" ") for line in read_lines(folder / SYNSETS, "WNID and names")]
        return [wnid for wnid, _, _ in lines], tuple(names.partition(",")[0] or wnid for wnid, _, names in lines)
    wnids = class_names(folder / listed)
    return wnids, tuple(wnids)


def _flat(root: Path, below: str, wnids: Sequence[str]) -> Split:
    """Load the flat `val/ILSVRC2012_val_00000001.JPEG` etc., with classes from the accompanying list."""
    if not (root / SOLUTION).is_file():
        hint = f"add {SOLUTION}, or sort the images into folders by class"
        raise InputError(f"{root / below} has no folders of classes, and {root} no {SOLUTION}", hint)
    numbers = {wnid: number for number, wnid in enumerate(wnids)}
    names, labels = [], []
    for line in read_lines(root / SOLUTION, "IMAGE,WNID and boxes")[1:]:
        image, _, prediction = line.partition(",")
        wnid = prediction.partition(" ")[0]
        if wnid not in numbers:
            raise InputError(f"{root / SOLUTION}: expected IMAGE,WNID and boxes, got '{line[:60]}'", f"is {SYNSETS} there?")
        names.append(f"{below}/{image}.JPEG")
        labels.append(numbers[wnid])
    if missing := next((name for name in names if not (root / name).is_file()), None):
        raise InputError(f"{SOLUTION} names {missing}, which is not in {root}", "unpack the images again")
    return Split(ImageFiles(root, tuple(names)), np.array(labels, np.int64))
