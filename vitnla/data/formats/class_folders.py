"""Image files whose class is the folder that they lie in: listing them, and the data SPEC `folder`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.image_files import SUFFIXES, ImageFiles
from vitnla.data.splits import assemble, assemble_whole


def class_names(folder: Path) -> list[str]:
    """Names of the folders in `folder`, sorted; hidden ones do not count."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def class_images(root: Path, below: str, classes: Sequence[str]) -> Split:
    """The images of `root/below/CLASS/` for each class folder there, class by class, by name within a class.

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
    for label, name in enumerate(classes):
        if name in present:
            found = sorted(file.name for file in (folder / name).iterdir() if file.suffix.lower() in SUFFIXES)
            if not found:
                kinds = ", ".join(sorted(SUFFIXES))
                raise InputError(f"{folder / name}: expected image files, got none", f"an image ends in one of {kinds}")
            names += [(Path(below) / name / file).as_posix() for file in found]
            labels += [label] * len(found)
    return Split(ImageFiles(root, tuple(names)), np.array(labels, np.int64))


def load_folder(folder: Path) -> Dataset:
    """`train/CLASS/` and `test/CLASS/`, or `CLASS/` alone, of which a fifth of the images, always the same, is for testing.

    Raises:
        InputError: there are no classes, a class has no images or is not among the training classes, or `test` is missing.
    """
    if not (folder / "train").is_dir():
        classes = class_names(folder)
        return assemble_whole("folder", tuple(classes), class_images(folder, "", classes))
    if not (folder / "test").is_dir():
        raise InputError(f"{folder}: expected train and test, got train alone", "name the folder of the test images 'test'")
    classes = class_names(folder / "train")
    training = class_images(folder, "train", classes)
    return assemble("folder", tuple(classes), training, class_images(folder, "test", classes))
