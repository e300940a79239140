"""Image files in one folder per class: listing them, and the data SPEC `folder`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitnla.common.errors import InputError
from vitnla.common.notes import note_once
from vitnla.data.dataset import Dataset, Split
from vitnla.data.formats.synsets import synset_names
from vitnla.data.image_files import ImageFiles, find_images, image_suffixes, skipped_note
from vitnla.data.splits import assemble, assemble_whole

_HELD_OUT = ("test", "val", "valid", "validation")
"""Names of the folder of the test split, in search order."""
_SPLITS = frozenset({"train", "training", "testing", *_HELD_OUT})


def class_names(folder: Path) -> list[str]:
    """Return the names of the folders in `folder`, sorted, numerically where all are numbers; hidden ones are skipped."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def class_images(root: Path, below: str, classes: Sequence[str]) -> Split:
    """Return the images of `root/below/CLASS/`, recursively, for each class: class by class, by path within a class.

    Args:
        root: folder of the data set.
        below: folder of the classes under `root`; "" is `root` itself.
        classes: every class, in the order of the labels. Not all need be there; an unknown one is an error.

    Raises:
        InputError: a class is unknown or holds no images, or there are no classes.
    """
    folder = root / below
    present = class_names(folder)
    if not present:
        raise InputError(f"{folder}: expected a folder of images for each class, got no folders", "put the images into them")
    if unknown := sorted(set(present) - set(classes)):
        raise InputError(f"{folder}: expected only classes that are known, got '{unknown[0]}'", f"such as {classes[0]}")
    names: list[str] = []
    labels: list[int] = []
    skipped = Counter[str]()
    for label, name in enumerate(classes):
        if name in present:
            found, others = find_images(folder / name)
            if not found:
                kinds = ", ".join(sorted(image_suffixes()))
                raise InputError(f"{folder / name}: expected image files, got none", f"an image ends in one of {kinds}")
            names += [(Path(below) / name / file).as_posix() for file in found]
            labels += [label] * len(found)
            skipped += others
    depth = len(Path(below).parts) + 2
    if nested := sum(len(Path(name).parts) > depth for name in names):
        note_once(f"{folder}: {nested:,} of {len(names):,} images lie in folders within the class folders, and are of that class")
    if (note := skipped_note(folder, skipped)) is not None:
        note_once(note)
    return Split(ImageFiles(root, tuple(names)), np.array(labels, np.int64))


def load_folder(folder: Path) -> Dataset:
    """Load `train/CLASS/` and `test/CLASS/`, or `CLASS/` alone, of which a fixed fifth of the images is for testing.

    Where there is no `test`, `val` (or `valid`, `validation`) is the test split, and validation images are training images that
    are held out, as everywhere. Class folders named by synset ids get their names from `LOC_synset_mapping.txt`, if it lies
    in `folder`.

    Raises:
        InputError: there are no classes, a class has no images or is not among the training classes, or there is no test split.
    """
    if not (folder / "train").is_dir():
        classes = class_names(folder)
        _refuse_splits(folder, classes)
        return assemble_whole("folder", synset_names(folder, classes), class_images(folder, "", classes))
    held_out = [name for name in _HELD_OUT if (folder / name).is_dir()]
    if not held_out:
        raise InputError(f"{folder}: expected train and test, got train alone", "name the folder of the test images 'test'")
    if held_out[0] != "test":
        note_once(f"{folder} has no test: '{held_out[0]}' is the test split, and validation images are held out from train")
    elif held_out[1:]:
        note_once(f"{folder}: '{held_out[1]}' is not used; validation images are held out from train")
    classes = class_names(folder / "train")
    training = class_images(folder, "train", classes)
    return assemble("folder", synset_names(folder, classes), training, class_images(folder, held_out[0], classes))


def _refuse_splits(folder: Path, classes: Sequence[str]) -> None:
    """Refuse split folders where class folders are expected."""
    for name in classes:
        if name.lower() in _SPLITS and class_names(folder / name):
            found = f"{folder}: expected a folder for each class, or 'train' and 'test', got '{name}' with folders in it"
            raise InputError(found, f"name the folder of the training images 'train', or give folder:{folder / name}")
