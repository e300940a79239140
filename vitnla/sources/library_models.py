"""Helpers shared by adapters that build a library's own module: parsing `NAME[@WEIGHTS]`, and importing the library."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.sources.state_dict import fitting_prefix, shown

RANDOM = "random"
"""The WEIGHTS value for random weights."""
_SEED = 0
_SHAPES_SHOWN = 2


def import_library(name: str, spec: str) -> Any:
    """Import the library on first use and return it.

    Raises:
        MissingDependencyError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        hint = f"pip install {name.partition('.')[0]}, or vitdeploy with the extra 'sources'"
        raise MissingDependencyError(f"{spec}: needs the package {name}, which cannot be imported: {error}", hint) from error
    except RuntimeError as error:  # torchvision's operators, where it was built for another torch
        hint = "install the torchvision that was built for the torch that is installed, CPU or CUDA alike"
        raise MissingDependencyError(f"{spec}: the package {name} does not fit this torch: {error}", hint) from error


def split_weights(rest: str, kind: str) -> tuple[str, str | None]:
    """Return NAME and WEIGHTS of `NAME[@WEIGHTS]`.

    Raises:
        InputError: one of them is empty.
    """
    name, at, weights = rest.partition("@")
    if not name or (at and not weights):
        hint = f"expected {kind}:NAME, {kind}:NAME@FILE (.safetensors, .pth, .pth.tar, .ckpt), or {kind}:NAME@{RANDOM} for random weights"
        raise InputError(f"'{kind}:{rest}' names no model or no weights", hint)
    return name, weights or None


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Seed random weights, so that they are the same in every process and a model made of them can be recreated."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        yield


@contextmanager
def downloading(spec: str, kind: str, name: str) -> Iterator[None]:
    """Convert any exception of a library's download into one clear error: the library's, its HTTP client's, the system's.

    Raises:
        InputError: something was raised.
    """
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        hint = f"give the weights as a file, {kind}:{name}@FILE; {kind}:{name}@{RANDOM} is the architecture with random weights"
        raise InputError(f"{spec}: the pretrained weights cannot be had: {reason}", hint) from error


def fill_module(module: nn.Module, tensors: dict[str, Tensor], path: Path, name: str) -> None:
    """Load a state_dict, all of it.

    Args:
        module: the module to fill.
        tensors: its weights.
        path: their file, for errors.
        name: the model that was asked for, for errors.

    Raises:
        InputError: names the first weights that are missing, left over or of another shape, and a prefix that would have fitted.
    """
    expected = {key: tensor.shape for key, tensor in module.state_dict().items()}
    missing = [key for key in expected if key not in tensors]
    extra = [key for key in tensors if key not in expected]
    other = [key for key, shape in expected.items() if key in tensors and tensors[key].shape != shape]
    if missing or extra:
        parts = [f"lacks {shown(missing)}"] * bool(missing) + [f"has {shown(extra)} besides"] * bool(extra)
        prefix = fitting_prefix(expected, tensors)
        hint = f"the prefix '{prefix}' would have fitted: --weights-key {prefix.rstrip('.')}" if prefix else (
            "name the architecture that was trained, or its arguments with --model-args"
        )  # fmt: skip
        raise InputError(f"{path}: expected the weights of {name}; the file {' and '.join(parts)}", hint)
    if other:
        found = ", ".join(
            f"'{key}' is {list(tensors[key].shape)}, expected {list(expected[key])}" for key in other[:_SHAPES_SHOWN]
        )
        rest = f", and {len(other) - _SHAPES_SHOWN} more" if len(other) > _SHAPES_SHOWN else ""
        hint = "name the architecture that was trained, or its arguments with --model-args"
        raise InputError(f"{path}: not the shapes of {name}: {found}{rest}", hint)
    module.load_state_dict(tensors)
