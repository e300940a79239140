"""Timm's own module, built with the arguments that fit a file's tensors, and filled."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.sources.library_models import fill_module, fixed_seed, import_library
from vitnla.sources.options import SourceOptions
from vitnla.sources.state_dict import shown, without_prefix
from vitnla.sources.timm.convert import DISTILLED, convert_timm
from vitnla.sources.timm.shapes import ANCHORS, HEAD, arguments_of_shapes, patch_size, pooling_arguments
from vitnla.sources.weights import read_weights

_POOLS = {"token": "the class token", "avg": "the mean of the patches", "map": "attention pooling"}
_SIZES = {
    "img_size": "image size", "in_chans": "channels", "patch_size": "patch size", "reg_tokens": "registers",
    "class_token": "class token", "depth": "blocks",
}  # fmt: skip
"""Arguments decided by a file, with a note to the user where they differ from the name's default."""
_EQUIVALENT = (
    "init_values",
    "qkv_bias",
    "proj_bias",
    "mlp_ratio",
    "pos_embed",
    "no_embed_class",
    "pre_norm",
    "qk_norm",
    "final_norm",
    "fc_norm",
)


@dataclass(frozen=True)
class Built:
    """A module in evaluation mode, and notes for the user on what was decided or assumed."""

    module: Any
    notes: tuple[str, ...] = ()


def build_meta(timm: Any, name: str, spec: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Build the module without storage, if its architecture is supported.

    Raises:
        InputError: a part is not supported, or timm refuses an argument; names it.
    """
    with torch.device("meta"):
        module = _create(timm, name, spec, arguments or {})
    convert_timm(module, spec)
    return module


def build_default(timm: Any, name: str, spec: str, options: SourceOptions, *, pretrained: bool) -> Built:
    """Build the module by its name alone, with timm's own weights or random ones.

    Raises:
        InputError: timm refuses an argument.
    """
    arguments: dict[str, Any] = dict(options.model_args)
    if pretrained and "num_classes" in arguments:
        hint = "leave it out, or give weights of that many classes: timm:NAME@FILE"
        raise InputError(f"{spec}: --model-args num_classes would give timm's weights a random classifier", hint)
    if options.image_size is not None:
        arguments["img_size"] = options.image_size
    module = _create(timm, name, spec, arguments, pretrained=pretrained)
    asked = options.image_size is not None and pretrained
    return Built(module, (f"positions are resampled to {options.image_size} px, as asked",) if asked else ())


def build_from_file(
    timm: Any, name: str, spec: str, file: Path, options: SourceOptions, folder: Mapping[str, Any] | None = None
) -> Built:
    """Build the module with the weights of a file.

    Precedence: the shapes of its tensors; then `options.model_args`, which may not contradict them; then the arguments in the
    `folder` that the file came in; then the defaults of the name.

    Raises:
        InputError: the tensors are of another architecture, contradict what is asked, or belong to images that are not square.
    """
    stored = read_weights(file, options.weights_key)
    default = build_meta(timm, name, spec)
    tensors, notes = _renamed(timm, name, spec, file, stored.tensors, options.weights_key)
    notes = (*stored.notes, *notes)
    distilled = type(default).__name__ == DISTILLED
    if distilled != ("dist_token" in tensors):
        found, kind = ("no 'dist_token'", "a plain") if distilled else ("'dist_token'", "a distilled")
        hint = f"name {kind} model, such as {'deit_small_patch16_224' if distilled else 'deit_small_distilled_patch16_224'}"
        raise InputError(f"{file}: expected the weights of {name}, found {found}", hint)
    given: dict[str, Any] = dict(options.model_args)
    stated = arguments_of_shapes(tensors, default, str(file))
    usual = arguments_of_shapes(default.state_dict(), default, spec)
    if stated["embed_dim"] != usual["embed_dim"] and "embed_dim" not in given | dict(folder or {}):
        hint = "name the timm model that was trained, or give --model-args embed_dim=WIDTH,num_heads=HEADS"
        raise InputError(f"{file}: expected the width of {name}, {usual['embed_dim']}, found {stated['embed_dim']}", hint)
    words = ""
    if not distilled:
        pooling, words = pooling_arguments(tensors, default, dict(folder or {}) | given, str(file))
        stated |= pooling
        usual |= {"global_pool": default.global_pool, "final_norm": None, "fc_norm": None}
    _agree(given, stated, str(file))
    notes += tuple(
        f"{file.parent}: config.json says {argument}={value}, {'--model-args' if argument in given else 'the weights'} "
        f"{given.get(argument, stated[argument])}: the latter is taken"
        for argument, value in (folder or {}).items()
        if argument in stated and argument not in _EQUIVALENT and _plain(value) != _plain(given.get(argument, stated[argument]))
    )
    decided = {argument: value for argument, value in stated.items() if value != usual[argument]}
    arguments = {k: v for k, v in (folder or {}).items() if k not in stated} | {k: v for k, v in given.items() if k not in stated}
    arguments |= decided
    size = stated.get("img_size")
    if options.image_size is not None:
        arguments["img_size"] = options.image_size
    with fixed_seed():
        module = _create(timm, name, spec, arguments)
    convert_timm(module, spec)
    if options.image_size not in (None, size):
        vision_transformer = import_library("timm.models.vision_transformer", spec)
        tensors = dict(vision_transformer.checkpoint_filter_fn(tensors, module))
        notes += (f"positions are resampled from {size} to {options.image_size} px, as asked",)
    different = [f"{what} {decided[key]} (the name's default is {usual[key]})" for key, what in _SIZES.items() if key in decided]
    if different and folder is None:
        notes += (f"{file.name} decides: {', '.join(different)}",)
    if words and "global_pool" not in (folder or {}):
        option = "avg" if module.global_pool == "token" else "token"
        notes += (
            f"pooling by {_POOLS.get(module.global_pool, module.global_pool)} is assumed: {words} (--model-args global_pool={option})",
        )
    fill_module(module, tensors, file, name)
    if folder is None:
        notes += _assumed(module, name, given)
    return Built(module, notes)


def _renamed(
    timm: Any, name: str, spec: str, file: Path, tensors: dict[str, Tensor], key: str | None
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Return the tensors by timm's names: prefixes removed, other formats that timm reads converted, nothing resampled."""
    notes: tuple[str, ...] = ()
    if not any("visual." in tensor for tensor in tensors):  # CLIP and its kin, whose prefixes timm itself knows
        inner = without_prefix(tensors, ANCHORS, str(file), key, HEAD)
        tensors, notes = inner.tensors, inner.notes
    patch = patch_size(tensors, str(file))
    module = build_meta(timm, name, spec, {} if patch is None else {"patch_size": patch})
    module.pos_embed = None  # whose size timm would resample the file's positions to
    vision_transformer = import_library("timm.models.vision_transformer", spec)
    renamed = dict(vision_transformer.checkpoint_filter_fn(tensors, module))
    if "patch_embed.proj.weight" not in renamed or "blocks.0.norm1.weight" not in renamed:
        hint = "name its kind: hf:FOLDER for transformers, torchvision:NAME@FILE, or --weights-key for an entry or prefix of the file"
        raise InputError(
            f"{file}: expected a timm ViT's weights, such as 'patch_embed.proj.weight', found {shown(renamed)}", hint
        )
    return renamed, notes


def _agree(given: Mapping[str, Any], stated: Mapping[str, Any], origin: str) -> None:
    """Refuse an argument that the file's shapes contradict."""
    for name, value in given.items():
        if name in stated and name != "init_values" and value != stated[name]:
            hint = f"leave {name} out of --model-args: the file decides it"
            if name == "img_size":
                hint = f"--image-size {value} resamples the positions; --model-args describe how the file was trained"
            raise InputError(f"{origin}: --model-args {name}={value} was given, but the file has {name}={stated[name]}", hint)


def _assumed(module: Any, name: str, given: Mapping[str, Any]) -> tuple[str, ...]:
    """Return notes on arguments that neither the tensors nor the user determine."""
    first = module.blocks[0]
    parts = {
        "num_heads": f"{first.attn.num_heads} heads", "act_layer": f"activation {type(first.mlp.act).__name__}",
        "norm_layer": f"norm epsilon {first.norm1.eps:g}",
    }  # fmt: skip
    if left := [words for argument, words in parts.items() if argument not in given]:
        return (f"assumed as {name} has it, as no tensor says it: {', '.join(left)} (--model-args)",)
    return ()


def _plain(value: Any) -> Any:
    """Return a pair of equal sides as one number."""
    return value[0] if isinstance(value, list | tuple) and len(set(value)) == 1 else value


def _create(timm: Any, name: str, spec: str, arguments: Mapping[str, Any], *, pretrained: bool = False) -> Any:
    """Call `timm.create_model`, with arguments of the model's constructor only.

    Raises:
        InputError: an argument is not known, or timm refuses its value.
    """
    if unknown := [argument for argument in arguments if argument not in _arguments(spec)]:
        hint = "known are the arguments of timm's VisionTransformer, such as global_pool, fc_norm, act_layer, num_heads"
        raise InputError(f"{spec}: {name} has no argument {shown(unknown)}", hint)
    if not arguments:
        return timm.create_model(name, pretrained=pretrained).eval()
    try:
        return timm.create_model(name, pretrained=pretrained, **arguments).eval()
    except (TypeError, ValueError, AssertionError, KeyError, AttributeError) as error:
        words = ", ".join(f"{argument}={value}" for argument, value in arguments.items())
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{spec}: timm does not build {name} with {words}: {reason}", "correct --model-args") from error


def _arguments(spec: str) -> frozenset[str]:
    vision_transformer = import_library("timm.models.vision_transformer", spec).VisionTransformer
    return frozenset(inspect.signature(vision_transformer.__init__).parameters) - {"self", "device", "dtype", "weight_init"}
