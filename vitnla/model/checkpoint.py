"""Checkpoints: folders with `config.json` and `model.safetensors`. Nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.common.files import atomic_folder, write_atomically
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def write_checkpoint(model: VisionTransformer, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the two files into an existing folder (see `save_checkpoint` for a folder of its own)."""
    write_atomically(folder / CONFIG, model.config.to_json())
    tensors = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(folder / WEIGHTS, save(tensors))


def save_checkpoint(model: VisionTransformer, folder: Path, dtype: torch.dtype = torch.float32, *, replace: bool = False) -> None:
    """Write `model` as a checkpoint folder, atomically.

    Raises:
        InputError: the folder exists and `replace` is false, or it cannot be written.
    """
    with atomic_folder(folder, replace=replace) as scratch:
        write_checkpoint(model, scratch, dtype)


def load_checkpoint(folder: Path) -> VisionTransformer:
    """Read a checkpoint folder as a float32 model in evaluation mode.

    Raises:
        InputError: a file is missing or damaged, the weights do not fit the config, or a weight is not finite.
    """
    if not folder.is_dir():
        raise InputError(f"no checkpoint folder at {folder}", f"expected a folder with {CONFIG} and {WEIGHTS}")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}", f"a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    config = ViTConfig.read(folder / CONFIG)
    return build(config, read_tensors(folder / WEIGHTS), str(folder))


def build(config: ViTConfig, tensors: dict[str, Tensor], origin: str, dtype: torch.dtype = torch.float32) -> VisionTransformer:
    """Return a model of `config` with the weights `tensors` as `dtype`; `origin` names the source in errors."""
    with torch.device("meta"):
        model = VisionTransformer(config)
    fill(model, tensors, origin, dtype)
    return model


def fill(module: nn.Module, tensors: dict[str, Tensor], origin: str, dtype: torch.dtype = torch.float32) -> None:
    """Load tensors as `dtype` into a module without storage, and put it in evaluation mode."""
    check_tensors(module, tensors, origin)
    module.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    module.requires_grad_(True).eval()


def check_tensors(module: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Compare names and shapes with the config and refuse NaN and infinity, naming the first tensor that is wrong."""
    expected = module.state_dict()
    hint = "the weights belong to another config, or the file is damaged"
    for name in expected:
        if name not in tensors:
            raise InputError(f"{origin}: expected weight '{name}', which is missing", hint)
    for name, tensor in tensors.items():
        if name not in expected:
            raise InputError(f"{origin}: weight '{name}' is not part of the model that config.json describes", hint)
        if tensor.shape != expected[name].shape:
            raise InputError(f"{origin}: weight '{name}' should be {list(expected[name].shape)}, got {list(tensor.shape)}", hint)
        if not torch.isfinite(tensor).all():
            raise InputError(f"{origin}: weight '{name}' holds NaN or infinity", "train again, or restore the file from a backup")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return all tensors of a safetensors file, with a clear error where it is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise InputError(f"no file at {path}", "check the path") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}", "it may be truncated; copy it again") from error
