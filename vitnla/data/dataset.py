"""What a data set is here: named splits of uint8 images and labels. NumPy only, so it works without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError, unknown_name


@dataclass(frozen=True)
class Split:
    """Images [N, H, W, C] uint8 and labels [N] int64."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
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

    def head(self, count: int) -> Split:
        """The first `count` images."""
        return Split(self.images[:count], self.labels[:count])

    def fingerprint(self) -> str:
        """Hash of the pixels and labels: the key under which results about this split are cached."""
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
        """One split, or an error that lists those there are."""
        if name not in self.splits:
            raise unknown_name(f"split of data '{self.name}'", name, self.splits)
        return self.splits[name]
