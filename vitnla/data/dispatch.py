"""From a data SPEC, as typed on the command line, to a data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from vitnla.common.errors import InputError
from vitnla.common.registry import Registry
from vitnla.data.dataset import Dataset
from vitnla.data.demo import load_demo
from vitnla.data.fashion_mnist import load_fashion_mnist

FOLDERS: Registry[Callable[[Path], Dataset]] = Registry("data")
FOLDERS.add("fashion-mnist", load_fashion_mnist)


def load_data(spec: str) -> Dataset:
    """Load `demo` or `NAME:FOLDER` with NAME in the registry `FOLDERS`.

    Raises:
        InputError: the spec is not understood, or the files are missing or damaged.
    """
    name, colon, folder = spec.partition(":")
    if spec == "demo":
        return load_demo()
    if name in FOLDERS and colon and folder:
        if not Path(folder).is_dir():
            raise InputError(f"no folder at {folder} for data '{spec}'", f"expected {name}:FOLDER")
        return FOLDERS[name](Path(folder))
    choices = ", ".join(["demo", *(f"{known}:FOLDER" for known in FOLDERS)])
    raise InputError(f"unknown data '{spec}'", f"expected one of: {choices}")
