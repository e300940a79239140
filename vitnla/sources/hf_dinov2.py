"""DINOv2 classifiers in the transformers format (`Dinov2ForImageClassification`), read without transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import ConfigDict
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.common.schema import Record
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.checkpoint import CONFIG, WEIGHTS, build, read_tensors
from vitnla.model.config import Activation, ViTConfig
from vitnla.sources.model import SourceModel

PREPROCESSOR = "preprocessor_config.json"
SUPPORTED = ("dinov2",)
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu",
}  # fmt: skip
_RESAMPLE: dict[int, Literal["nearest", "bilinear", "bicubic"]] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of its filters."""


class _Settings(Record):
    """The settings that matter here, out of the many that transformers writes."""

    model_config = ConfigDict(extra="ignore")


class _Architecture(_Settings):
    model_type: str


class _Dinov2(_Settings):
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    mlp_ratio: float
    hidden_act: str
    layer_norm_eps: float
    image_size: int
    patch_size: int
    num_channels: int
    id2label: dict[int, str]
    use_swiglu_ffn: bool = False


class _Processor(_Settings):
    do_resize: bool
    size: dict[str, int]
    resample: int
    do_center_crop: bool = False
    crop_size: dict[str, int] | None = None
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]


def load_hf(folder: Path) -> SourceModel:
    """Read `config.json`, `model.safetensors` and `preprocessor_config.json` as a canonical float32 model.

    Raises:
        InputError: a file is missing or damaged, or the model has a part that is not supported; names the file or part.
    """
    for name in (CONFIG, WEIGHTS, PREPROCESSOR):
        if not (folder / name).is_file():
            hint = f"expected a transformers folder with {CONFIG}, {WEIGHTS} and {PREPROCESSOR}"
            raise InputError(f"{folder} has no {name}", hint)
    model_type = _Architecture.read(folder / CONFIG).model_type
    if model_type not in SUPPORTED:
        hint = f"supported in the transformers format: {', '.join(SUPPORTED)}"
        raise InputError(f"{folder}: unsupported model_type '{model_type}'", hint)
    settings = _Dinov2.read(folder / CONFIG)
    config = _vit_config(settings, str(folder))
    preprocessing = _preprocessing(_Processor.read(folder / PREPROCESSOR), config.image_size, str(folder / PREPROCESSOR))
    model = build(config, _rename(read_tensors(folder / WEIGHTS), config, str(folder)), str(folder))
    labels = tuple(settings.id2label[index] for index in sorted(settings.id2label))
    return SourceModel(f"hf:{folder}", sha256_file(folder / WEIGHTS), model, preprocessing, labels)


def _vit_config(settings: _Dinov2, origin: str) -> ViTConfig:
    if settings.use_swiglu_ffn:
        raise InputError(f"{origin}: unsupported use_swiglu_ffn true (a gated MLP)", "supported: use_swiglu_ffn false")
    if settings.hidden_act not in _ACTIVATIONS:
        raise InputError(f"{origin}: unsupported hidden_act '{settings.hidden_act}'", f"supported: {', '.join(_ACTIVATIONS)}")
    return ViTConfig.uniform(
        image_size=settings.image_size, patch_size=settings.patch_size, channels=settings.num_channels,
        classes=len(settings.id2label), dim=settings.hidden_size, depth=settings.num_hidden_layers,
        heads=settings.num_attention_heads, mlp_ratio=settings.mlp_ratio, pooling="cls+mean",
        activation=_ACTIVATIONS[settings.hidden_act], layer_scale=True, norm_eps=settings.layer_norm_eps,
    )  # fmt: skip


def _preprocessing(settings: _Processor, image_size: int, origin: str) -> Preprocessing:
    """What the image processor does, if that is a resize to the model's square, division by 255 and a normalisation."""
    square = {"height": image_size, "width": image_size}
    crop = settings.crop_size if settings.do_center_crop else square
    if not settings.do_resize or settings.size != square or crop != square:
        hint = f"the position embeddings are for {image_size} x {image_size}: correct the processor, or resample them"
        found = f"size {settings.size}, crop to {crop}"
        raise InputError(f"{origin}: expected a resize to {image_size} x {image_size}, got {found}", hint)
    if settings.resample not in _RESAMPLE:
        raise InputError(f"{origin}: unsupported resample {settings.resample}", f"supported: {_RESAMPLE}, by Pillow's numbers")
    if not (settings.do_rescale and abs(settings.rescale_factor * 255 - 1) < 1e-6 and settings.do_normalize):
        raise InputError(f"{origin}: unsupported scaling", "supported: rescale_factor 1/255, then do_normalize")
    return Preprocessing(
        image_size=image_size, mean=settings.image_mean, std=settings.image_std, interpolation=_RESAMPLE[settings.resample]
    )


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
        if f"{parts[0]}.bias" in left:
            tensors[f"{new}.attn.qkv.bias"] = torch.cat([take(f"{part}.bias") for part in parts])
        else:  # qkv_bias false
            tensors[f"{new}.attn.qkv.bias"] = torch.zeros(block.linear_shapes(config.dim)["qkv"][0])
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
