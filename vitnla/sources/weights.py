"""Reading of model zoos' weight files. Only tensors are unpickled (`weights_only=True`)."""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import ConfigDict
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.common.schema import Record
from vitnla.model.checkpoint import read_tensors
from vitnla.sources.state_dict import Weights, choose_state_dict, shown

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".pt.tar")


class ShardIndex(Record):
    """`*.index.json` of weights in several files."""

    model_config = ConfigDict(extra="ignore")

    weight_map: dict[str, str]


def read_weights(path: Path, key: str | None = None) -> Weights:
    """Return the tensors of a `.safetensors` file, or of a checkpoint of torch that holds tensors and plain values only.

    Args:
        path: the file.
        key: which weights to take where it holds several (see `choose_state_dict`).

    Raises:
        InputError: the file is missing or damaged, has another suffix, holds other objects, or has no weights under `key`.
    """
    if path.suffix == ".safetensors":
        return choose_state_dict(read_tensors(path), str(path), key)
    if not path.name.endswith(PICKLED):
        hint = f"expected one of .safetensors, {', '.join(PICKLED)}"
        raise InputError(f"{path}: unknown kind of weights file '{path.suffix}'", hint)
    try:
        # timm's and DeiT's scripts keep their arguments beside the weights, in a class that holds values and runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no file at {path}", "check the path") from error
    except pickle.UnpicklingError as error:
        hint = "where you trust it, load it in Python and save the state_dict alone: save_file(state_dict, 'weights.safetensors')"
        raise InputError(
            f"{path} cannot be read with weights_only=True: it holds {_objects(path)}, which could run code", hint
        ) from error
    # Damaged bytes make torch's reader fail anywhere, an IndexError of its stack included.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} is not a readable torch file: {reason}", "copy it again") from error
    return choose_state_dict(loaded, str(path), key)


def _objects(path: Path) -> str:
    """Return the names of the classes in a torch file that are not tensors."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a pickle of its own kind, which torch cannot list
        names = []
    return shown(names) if names else "objects other than tensors"


def read_sharded(index: Path) -> Weights:
    """Return the tensors of every file that a `*.index.json` names.

    Raises:
        InputError: the index or a file is missing or damaged, or the index leaves the folder.
    """
    tensors: dict[str, Tensor] = {}
    for name in _shards(index):
        tensors |= read_weights(index.parent / name).tensors
    return Weights(tensors)


def weights_sha256(path: Path, key: str | None = None) -> str:
    """Return the sha256 of a file, for a `*.index.json` of the hashes of its files; weights chosen by `key` have one of their own."""
    if key is not None:
        return hashlib.sha256(f"{weights_sha256(path)} {key}".encode()).hexdigest()
    if not path.name.endswith(".index.json"):
        return sha256_file(path)
    return hashlib.sha256("".join(sha256_file(path.parent / name) for name in _shards(path)).encode()).hexdigest()


def _shards(index: Path) -> Sequence[str]:
    names = sorted(set(ShardIndex.read(index).weight_map.values()))
    for name in names:
        if Path(name).name != name:
            raise InputError(f"{index}: expected names of files beside it, got '{name}'", "download the model again")
    return names
