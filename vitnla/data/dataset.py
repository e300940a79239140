"""Data sets: named splits of images and labels. NumPy only, so it works without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError, unknown_name
from vitnla.common.notes import note_once
from vitnla.data.class_mapping import SAME, ClassMapping, ClassMismatch, match_classes
from vitnla.data.image_files import ImageFiles, Images


@dataclass(frozen=True)
class Split:
    """Images and labels [N] int64. Images are uint8 [N, H, W, C], or files, which `Preprocessing` decodes batch by batch.

    `classes` maps labels to outputs of a model; see `Dataset.for_model`.
    """

    images: Images
    labels: NDArray[np.int64]
    classes: ClassMapping = SAME

    def __post_init__(self) -> None:
        if isinstance(self.images, np.ndarray) and (self.images.ndim != 4 or self.images.dtype != np.uint8):
            raise InputError(
                f"expected uint8 images [N, H, W, C], got {self.images.dtype} {self.images.shape}", "check the data files"
            )
        if len(self.images) != len(self.labels):
            raise InputError(
                f"expected one label per image, got {len(self.images)} images and {len(self.labels)} labels",
                "check the data files",
            )

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, count: int | None) -> Split:
        """Return the first `count` images; `None` is all."""
        return self.take(slice(count))

    def take(self, index: slice | NDArray[np.int64]) -> Split:
        """Return the images at `index`, in that order."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def at_size(self, size: int) -> Split:
        """Return the split with its files to be decoded to `size` x `size` pixels, independent of the model's size.

        Raises:
            InputError: the images are not files, so their size is fixed.
        """
        if not isinstance(self.images, ImageFiles):
            _, height, width, _ = self.images.shape
            raise InputError(f"expected no @{size}: these images are {height} x {width}", f"leave @{size} out")
        return replace(self, images=replace(self.images, size=size))

    def pixels(self) -> NDArray[np.uint8]:
        """Return all images in memory, as uint8 [N, H, W, C]; files are decoded in colour.

        Raises:
            InputError: the images are files and no size was given, or a file is damaged.
        """
        if not isinstance(self.images, ImageFiles):
            return self.images
        if self.images.size is None:
            raise InputError(
                f"expected a size to decode the images in {self.images.root} to, got none", "give one, such as folder:DIR@64"
            )
        return self.images.decode(self.images.size, 3, "bilinear")

    def in_memory(self) -> Split:
        """Return the split with its images as one array; see `pixels`."""
        return replace(self, images=self.pixels())

    def fingerprint(self) -> str:
        """Return the hash of the pixels or files and the labels: the cache key of results on this split."""
        if isinstance(self.images, ImageFiles):
            digest = hashlib.sha256(repr((len(self), self.images.size)).encode())
            for content in self.images.contents():
                digest.update(hashlib.sha256(content).digest())
        else:
            digest = hashlib.sha256(repr(self.images.shape).encode())
            digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """A data set with its class names. Calibration and validation images are never test images."""

    name: str
    labels: tuple[str, ...]
    splits: Mapping[str, Split]

    def split(self, name: str) -> Split:
        """Return one split, or raise an error that lists the available ones."""
        if name not in self.splits:
            raise unknown_name(f"split of data '{self.name}'", name, self.splits)
        return self.splits[name]

    def at_size(self, size: int) -> Dataset:
        """Return the data set with every split's files to be decoded to `size` x `size` pixels."""
        return Dataset(self.name, self.labels, {name: split.at_size(size) for name, split in self.splits.items()})

    def for_model(self, labels: Sequence[str], *, required: bool = True) -> Dataset:
        """Return the data set with its classes matched to a model's class names, see `match_classes`; notes how on stderr.

        Args:
            labels: class names of the model.
            required: whether data of other classes are refused; else their splits say why accuracy cannot be measured, unless
                some names do match, so that the others are probably misspelt.

        Raises:
            ClassMismatch: the classes are others.
        """
        try:
            mapping = match_classes(self.labels, labels, self.name)
        except ClassMismatch as error:
            if required or error.overlap:
                raise
            mapping = ClassMapping(unmatched=error.message, features=error.features, note=f"{error.message} ({error.hint})")
        if mapping.note is not None:
            note_once(mapping.note)
        return replace(self, splits={name: replace(split, classes=mapping) for name, split in self.splits.items()})
