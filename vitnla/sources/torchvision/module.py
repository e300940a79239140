"""Torchvision's own module, built for a file's tensors, and filled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.sources.library_models import fill_module
from vitnla.sources.options import SourceOptions
from vitnla.sources.state_dict import shown, without_prefix
from vitnla.sources.weights import read_weights

_STEM, _POSITIONS = "conv_proj.weight", "encoder.pos_embedding"


@dataclass(frozen=True)
class Built:
    """A module in evaluation mode, and notes for the user on what was decided or assumed."""

    module: Any
    notes: tuple[str, ...] = ()


def build_from_file(models: Any, name: str, file: Path, options: SourceOptions) -> Built:
    """Build the module with the weights of a file, whose shapes decide image size, channels and head.

    The head may be torchvision's own, with or without its hidden layer, one linear in place of it, or absent.

    Raises:
        InputError: the tensors are of another architecture, or belong to images that are not square.
    """
    stored = read_weights(file, options.weights_key)
    inner = without_prefix(stored.tensors, (_STEM,), str(file), options.weights_key)
    tensors, notes = _plain_head(inner.tensors, file), (*stored.notes, *inner.notes)
    if _STEM not in tensors or _POSITIONS not in tensors:
        hint = "name its kind: timm:NAME@FILE, hf:FOLDER, or --weights-key for an entry or prefix of the file"
        raise InputError(f"{file}: expected the weights of torchvision's {name}, such as '{_STEM}', found {shown(tensors)}", hint)
    stem = tensors[_STEM].shape
    patches = tensors[_POSITIONS].shape[1] - 1
    side = round(max(patches, 1) ** 0.5)
    if side * side != patches or stem[2] != stem[3]:
        found = f"{patches} patches of {stem[2]} x {stem[3]} px"
        raise InputError(
            f"{file}: expected a square grid of square patches, found {found}", "images that are not square are not supported"
        )
    size = side * stem[2]
    if options.image_size is not None and options.image_size != size:
        tensors = dict(models.vision_transformer.interpolate_embeddings(options.image_size, stem[2], tensors))
        notes += (f"positions are resampled from {size} to {options.image_size} px, as asked",)
    head, hidden = tensors.get("heads.head.weight"), tensors.get("heads.pre_logits.weight")
    extra = {} if hidden is None else {"representation_size": len(hidden)}
    module = models.get_model(
        name, weights=None, image_size=options.image_size or size, num_classes=1 if head is None else len(head), **extra
    )
    if head is None:
        module.heads = nn.Identity()
    if stem[1] != module.conv_proj.in_channels:
        conv = module.conv_proj
        module.conv_proj = nn.Conv2d(stem[1], conv.out_channels, conv.kernel_size, conv.stride)
        notes += (
            f"{file.name} decides: {stem[1]} channel{'s' if stem[1] > 1 else ''} (the name's default is {conv.in_channels})",
        )
    fill_module(module, tensors, file, f"torchvision's {name}")
    return Built(module.eval(), notes)


def resampled(models: Any, name: str, module: Any, image_size: int) -> Any:
    """Return torchvision's own weights with positions resampled to another image size, as torchvision does."""
    patch, head = module.patch_size, module.heads.head.out_features
    tensors = models.vision_transformer.interpolate_embeddings(image_size, patch, module.state_dict())
    larger = models.get_model(name, weights=None, image_size=image_size, num_classes=head)
    larger.load_state_dict(tensors)
    return larger.eval()


def _plain_head(tensors: Mapping[str, Tensor], file: Path) -> dict[str, Tensor]:
    """Rename a single linear under `heads`, whatever its name, to torchvision's `heads.head`."""
    inside = {name: tensor for name, tensor in tensors.items() if name.startswith("heads.")}
    weights = [name for name, tensor in inside.items() if name.endswith("weight") and tensor.ndim == 2]
    if len(weights) != 1:
        if weights and set(weights) != {"heads.pre_logits.weight", "heads.head.weight"}:
            hint = "supported: one linear, or torchvision's pre_logits and head"
            raise InputError(f"{file}: unsupported head of {len(weights)} linears: {shown(weights)}", hint)
        return dict(tensors)
    prefix = weights[0].removesuffix("weight")
    renamed = {name.replace(prefix, "heads.head.", 1): tensor for name, tensor in inside.items()}
    return {name: tensor for name, tensor in tensors.items() if name not in inside} | renamed
