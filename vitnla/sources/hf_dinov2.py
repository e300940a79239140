"""DINOv2 classifiers in the transformers format (`Dinov2ForImageClassification`), read without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.checkpoint import CONFIG, WEIGHTS, build, read_tensors
from vitnla.model.config import Activation, ViTConfig
from vitnla.sources.model import SourceModel

PREPROCESSOR = "preprocessor_config.json"
SUPPORTED = ("dinov2",)
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu",
}  # fmt: skip
Interpolation = Literal["nearest", "bilinear", "bicubic"]
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Numbers of Pillow's filters."""


def load_hf(folder: Path) -> SourceModel:
    """Read `config.json`, `model.safetensors` and `preprocessor_config.json` as a canonical float32 model.

    Raises:
        InputError: a file is missing or damaged, or the model has a part that is not supported; names the file or part.
    """
    for name in (CONFIG, WEIGHTS, PREPROCESSOR):
        if not (folder / name).is_file():
            hint = f"expected a transformers folder with {CONFIG}, {WEIGHTS} and {PREPROCESSOR}"
            raise InputError(f"{folder} has no {name}", hint)
    source = _read_json(folder / CONFIG)
    _check_supported(folder, source)
    try:
        config = _vit_config(source)
        labels = tuple(name for _, name in sorted((int(index), str(name)) for index, name in source["id2label"].items()))
        preprocessing = _preprocessing(folder / PREPROCESSOR, _read_json(folder / PREPROCESSOR), config)
    except KeyError as error:
        hint = "save the model again with save_pretrained"
        raise InputError(f"{folder}: expected a setting {error}, which is missing", hint) from error
    tensors = _rename(read_tensors(folder / WEIGHTS), config, str(folder))
    return SourceModel(f"hf:{folder}", sha256_file(folder / WEIGHTS), build(config, tensors, str(folder)), preprocessing, labels)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable JSON: {error}", "copy the file again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}", "copy the file again")
    return content


def _check_supported(folder: Path, source: dict[str, Any]) -> None:
    """Refuse what the canonical model cannot express, before any weight is read."""
    model_type = source.get("model_type")
    if model_type not in SUPPORTED:
        hint = f"supported in the transformers format: {', '.join(SUPPORTED)}"
        raise InputError(f"{folder}: unsupported model_type '{model_type}'", hint)
    unsupported = {
        "use_swiglu_ffn true (a gated MLP)": bool(source.get("use_swiglu_ffn")),
        f"hidden_act '{source.get('hidden_act')}'": source.get("hidden_act") not in _ACTIVATIONS,
        "an image_size that is not one number (images must be square)": not isinstance(source.get("image_size"), int),
        "a patch_size that is not one number (patches must be square)": not isinstance(source.get("patch_size"), int),
    }
    if found := [part for part, present in unsupported.items() if present]:
        supported = f"supported: square images and patches, a plain MLP with {', '.join(_ACTIVATIONS)}"
        raise InputError(f"{folder}: unsupported: {'; '.join(found)}", supported)


def _vit_config(source: dict[str, Any]) -> ViTConfig:
    return ViTConfig.uniform(
        image_size=source["image_size"], patch_size=source["patch_size"], channels=source["num_channels"],
        classes=len(source["id2label"]), dim=source["hidden_size"], depth=source["num_hidden_layers"],
        heads=source["num_attention_heads"], mlp_ratio=source["mlp_ratio"], pooling="cls+mean",
        activation=_ACTIVATIONS[source["hidden_act"]], layer_scale=True, norm_eps=source["layer_norm_eps"],
    )  # fmt: skip


def _preprocessing(path: Path, source: dict[str, Any], config: ViTConfig) -> Preprocessing:
    """What the image processor does, if that is a resize to the model's square, division by 255 and a normalisation."""
    size = config.image_size
    square = {"height": size, "width": size}
    crop = source["crop_size"] if source.get("do_center_crop") else square
    if not source["do_resize"] or source["size"] != square or crop != square:
        hint = f"the model's position embeddings fit {size} x {size}; correct the processor, or resample them"
        raise InputError(f"{path}: expected a resize to {size} x {size}, got size {source['size']}, crop to {crop}", hint)
    if source["resample"] not in _RESAMPLE:
        raise InputError(f"{path}: unsupported resample {source['resample']}", f"supported, as Pillow numbers them: {_RESAMPLE}")
    if abs(source["rescale_factor"] * 255 - 1) > 1e-6 or not source["do_normalize"]:
        raise InputError(f"{path}: unsupported scaling", "supported: rescale_factor 1/255, then do_normalize")
    return Preprocessing(
        image_size=size, mean=tuple(source["image_mean"]), std=tuple(source["image_std"]),
        interpolation=_RESAMPLE[source["resample"]],
    )  # fmt: skip


def _rename(source: dict[str, Tensor], config: ViTConfig, origin: str) -> dict[str, Tensor]:
    """The checkpoint's tensors under the canonical names; queries, keys and values become one linear."""
    left = dict(source)

    def take(name: str) -> Tensor:
        if name not in left:
            hint = "expected the weights of Dinov2ForImageClassification"
            raise InputError(f"{origin}: expected weight '{name}', which is missing", hint)
        return left.pop(name)

    def pair(old: str, new: str) -> dict[str, Tensor]:
        return {f"{new}.{kind}": take(f"{old}.{kind}") for kind in ("weight", "bias")}

    tensors = pair("dinov2.embeddings.patch_embeddings.projection", "patch_embed")
    tensors["prefix"] = take("dinov2.embeddings.cls_token")[0]
    tensors["pos_embed"] = take("dinov2.embeddings.position_embeddings")[0]
    for index, block in enumerate(config.blocks):
        old, new = f"dinov2.encoder.layer.{index}", f"blocks.{index}"
        parts = [f"{old}.attention.attention.{part}" for part in ("query", "key", "value")]
        tensors[f"{new}.attn.qkv.weight"] = torch.cat([take(f"{part}.weight") for part in parts])
        has_bias = f"{parts[0]}.bias" in left
        rows = block.linear_shapes(config.dim)["qkv"][0]
        tensors[f"{new}.attn.qkv.bias"] = torch.cat([take(f"{part}.bias") for part in parts]) if has_bias else torch.zeros(rows)
        tensors |= pair(f"{old}.attention.output.dense", f"{new}.attn.proj")
        for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            tensors |= pair(f"{old}.{name}", f"{new}.{name}")
        for number in (1, 2):
            tensors[f"{new}.ls{number}.gamma"] = take(f"{old}.layer_scale{number}.lambda1")
    tensors |= pair("dinov2.layernorm", "norm") | pair("classifier", "head")
    left.pop("dinov2.embeddings.mask_token", None)  # of pretraining only
    if left:
        hint = "is it another architecture?"
        raise InputError(f"{origin}: weight '{next(iter(left))}' is not part of Dinov2ForImageClassification", hint)
    return tensors
