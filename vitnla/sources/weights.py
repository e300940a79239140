"""Weights from the files that the model zoos write. Nothing is unpickled but tensors (`weights_only=True`)."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import ConfigDict
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.common.schema import Record
from vitnla.model.checkpoint import read_tensors

PICKLED = (".pth", ".pt", ".bin")
_WRAPPERS = ("state_dict", "model", "model_state")
"""Names under which training scripts put the weights beside an optimiser's state."""


class ShardIndex(Record):
    """`*.index.json` of weights in several files."""

    model_config = ConfigDict(extra="ignore")

    weight_map: dict[str, str]


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a `.safetensors` file, or of a `.pth`, `.pt` or `.bin` file that holds nothing but tensors.

    Raises:
        InputError: the file is missing or damaged, has another suffix, or holds other objects.
    """
    if path.suffix == ".safetensors":
        return read_tensors(path)
    if path.suffix not in PICKLED:
        hint = f"expected one of .safetensors, {', '.join(PICKLED)}"
        raise InputError(f"{path}: unknown kind of weights file '{path.suffix}'", hint)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no file at {path}", "check the path") from error
    except pickle.UnpicklingError as error:
        hint = "it holds objects other than tensors, which could run code; save its state_dict as safetensors"
        raise InputError(f"{path} cannot be read with weights_only=True", hint) from error
    # Damaged bytes make torch's reader fail anywhere, an IndexError of its stack included.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} is not a readable torch file: {reason}", "copy it again") from error
    return _state_dict(loaded, path)


def read_sharded(index: Path) -> dict[str, Tensor]:
    """The tensors of every file that a `*.index.json` names.

    Raises:
        InputError: the index or a file is missing or damaged, or the index leaves the folder.
    """
    tensors: dict[str, Tensor] = {}
    for name in _shards(index):
        tensors |= read_weights(index.parent / name)
    return tensors


def weights_sha256(path: Path) -> str:
    """sha256 of a file, or for a `*.index.json` of the hashes of the files that it names."""
    if not path.name.endswith(".index.json"):
        return sha256_file(path)
    return hashlib.sha256("".join(sha256_file(path.parent / name) for name in _shards(path)).encode()).hexdigest()


def _shards(index: Path) -> Sequence[str]:
    names = sorted(set(ShardIndex.read(index).weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index}: expected names of files beside it, got '{name}'", "download the model again")
    return names


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded or not all(isinstance(tensor, Tensor) for tensor in loaded.values()):
        raise InputError(
            f"{path}: expected a state_dict of tensors, got {type(loaded).__name__}", "save model.state_dict() alone"
        )
    return {str(name): tensor for name, tensor in loaded.items()}
