"""Loading of a data set by its SPEC, as given on the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from vitnla.common.errors import InputError
from vitnla.common.registry import Registry
from vitnla.data.class_mapping import read_class_map, renamed
from vitnla.data.dataset import Dataset
from vitnla.data.demo import load_demo
from vitnla.data.formats.cifar import load_cifar10, load_cifar100
from vitnla.data.formats.class_folders import load_folder
from vitnla.data.formats.fashion_mnist import load_fashion_mnist
from vitnla.data.formats.food101 import load_food101
from vitnla.data.formats.imagenet import load_imagenet
from vitnla.data.formats.npz import load_npz
from vitnla.data.formats.svhn import load_svhn


@dataclass(frozen=True)
class Format:
    """A data format and its reader. `sizable` images are files of any shape, so their SPEC may end in @SIZE."""

    load: Callable[[Path], Dataset]
    place: Literal["FOLDER", "FILE"] = "FOLDER"
    sizable: bool = False

    @property
    def usage(self) -> str:
        """Syntax of the part after `NAME:` in a SPEC."""
        return f"{self.place}[@SIZE]" if self.sizable else self.place


FORMATS: Registry[Format] = Registry("data")
FORMATS.add("fashion-mnist", Format(load_fashion_mnist))
FORMATS.add("cifar10", Format(load_cifar10))
FORMATS.add("cifar100", Format(load_cifar100))
FORMATS.add("svhn", Format(load_svhn))
FORMATS.add("food101", Format(load_food101, sizable=True))
FORMATS.add("imagenet", Format(load_imagenet, sizable=True))
FORMATS.add("folder", Format(load_folder, sizable=True))
FORMATS.add("npz", Format(load_npz, place="FILE"))


def load_data(spec: str, class_map: Path | None = None) -> Dataset:
    """Load `demo` or `NAME:PLACE` with NAME in the registry `FORMATS`; `@SIZE` gives image files a size of their own.

    Args:
        spec: the data SPEC.
        class_map: a file that renames classes of the data to a model's names, see `read_class_map`.

    Raises:
        InputError: the spec is not understood, or a file is missing or damaged.
    """
    data = _load(spec)
    if class_map is None:
        return data
    return replace(data, labels=renamed(data.labels, read_class_map(class_map), f"class map {class_map}"))


def _load(spec: str) -> Dataset:
    if spec == "demo":
        return load_demo()
    name, _, rest = spec.partition(":")
    if name not in FORMATS or not rest:
        choices = ", ".join(["demo", *(f"{known}:{FORMATS[known].usage}" for known in FORMATS)])
        raise InputError(f"unknown data '{spec}'", f"expected one of: {choices}")
    known = FORMATS[name]
    path, size = _split_size(rest) if known.sizable else (Path(rest), None)
    if not (path.is_dir() if known.place == "FOLDER" else path.is_file()):
        raise InputError(f"no {known.place.lower()} at {path} for data '{spec}'", f"expected {name}:{known.usage}")
    data = known.load(path)
    return data if size is None else data.at_size(size)


def _split_size(text: str) -> tuple[Path, int | None]:
    """Split `FOLDER@64`, unless a folder of that full name exists."""
    found = re.fullmatch(r"(.+)@([1-9]\d{0,4})", text)
    if found is None or Path(text).is_dir():
        return Path(text), None
    return Path(found[1]), int(found[2])
