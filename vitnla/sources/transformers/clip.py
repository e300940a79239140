"""The image towers of CLIP and SigLIP in the transformers format: whole models, towers alone, and classifiers made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.model.config import AttentionPoolConfig, FinalNorm, Pooling, ViTConfig
from vitnla.sources.tensors import (
    BlockNames,
    Converted,
    SourceTensors,
    attention_pool,
    embedding_labels,
    identity_head,
    resampled_positions,
)
from vitnla.sources.transformers.settings import Encoder, Settings, Square, class_labels, first_rows, shape

_LAYER = "encoder.layers.{}"
BLOCK = BlockNames(
    qkv=tuple(f"{_LAYER}.self_attn.{part}_proj" for part in "qkv"), proj=f"{_LAYER}.self_attn.out_proj",
    norm1=f"{_LAYER}.layer_norm1", norm2=f"{_LAYER}.layer_norm2", fc1=f"{_LAYER}.mlp.fc1", fc2=f"{_LAYER}.mlp.fc2",
)  # fmt: skip
_TEXT = ("text_model.", "text_projection.", "logit_scale", "logit_bias")


class _Clip(Encoder):
    """Settings of CLIP and SigLIP, with transformers' defaults, which files omit."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    patch_size: Square = 32
    num_channels: int = 3
    image_size: Square = 224


class _Siglip(_Clip):
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6
    patch_size: Square = 16
    vision_use_head: bool = True


class _WholeClip(Settings):
    vision_config: _Clip
    id2label: dict[int, str] | None = None


class _WholeSiglip(Settings):
    vision_config: _Siglip
    id2label: dict[int, str] | None = None


class _Kind(Settings):
    model_type: Literal["clip", "clip_vision_model", "siglip", "siglip_vision_model"]


def convert_clip(config_file: Path, source: SourceTensors, image_size: int, origin: str) -> Converted:
    """Convert CLIP: the output is a classifier's, else the projected image embedding, else the normed class token.

    Raises:
        InputError: a part is not supported, or a weight is missing or left over.
    """
    kind = _Kind.read(config_file).model_type
    whole = _WholeClip.read(config_file) if kind == "clip" else None
    settings = whole.vision_config if whole else _Clip.read(config_file)
    tensors = _tower(source, settings, image_size, prefix=1)
    tensors["prefix"] = source.take("embeddings.class_embedding")[None]
    tensors |= source.linear("pre_layrnorm", "embed_norm")
    pooling: Pooling = "cls"
    final_norm: FinalNorm = "tokens"
    if "classifier.weight" in source:  # transformers gives it the mean of the patches as they leave the last block
        pooling, final_norm = "mean", "none"
        source.drop("post_layernorm.")
        head, classes = first_rows(source, "classifier")
        labels = class_labels(whole.id2label if whole else settings.id2label, classes, origin)
    else:
        tensors |= source.linear("post_layernorm", "norm")
        head = (
            source.linear("visual_projection", "head")
            if "visual_projection.weight" in source
            else identity_head(settings.hidden_size)
        )
        labels = embedding_labels(len(head["head.weight"]))
    source.done()
    return _converted(
        tensors | head, settings, image_size, labels, origin, pooling=pooling, final_norm=final_norm, embed_norm=True
    )


def convert_siglip(config_file: Path, source: SourceTensors, image_size: int, origin: str) -> Converted:
    """Convert SigLIP: the output is a classifier's, else that of the attention pool.

    Raises:
        InputError: a part is not supported, or a weight is missing or left over.
    """
    kind = _Kind.read(config_file).model_type
    whole = _WholeSiglip.read(config_file) if kind == "siglip" else None
    settings = whole.vision_config if whole else _Siglip.read(config_file)
    tensors = _tower(source, settings, image_size, prefix=0) | source.linear("post_layernorm", "norm")
    if "classifier.weight" in source:
        source.drop("head.")
        head, classes = first_rows(source, "classifier")
        labels = class_labels(whole.id2label if whole else settings.id2label, classes, origin)
        source.done()
        return _converted(tensors | head, settings, image_size, labels, origin, pooling="mean", class_token=False)
    if not settings.vision_use_head:
        raise InputError(
            f"{origin}: unsupported vision_use_head false: the model pools nothing", "supported: vision_use_head true"
        )
    width = settings.hidden_size
    tensors |= _pool(source, width) | identity_head(width)
    source.done()
    pool = AttentionPoolConfig(
        dim=width, heads=settings.num_attention_heads, mlp_dim=settings.intermediate_size, norm_eps=settings.layer_norm_eps
    )
    labels = embedding_labels(width)
    return _converted(tensors, settings, image_size, labels, origin, pooling="map", attention_pool=pool, class_token=False)


def _tower(source: SourceTensors, settings: _Clip, image_size: int, prefix: int) -> dict[str, Tensor]:
    """Return patches, positions and blocks; the text tower is dropped."""
    source.without_prefix("vision_model.")
    source.drop(*_TEXT, "embeddings.position_ids")
    positions = source.take("embeddings.position_embedding.weight")
    tensors = source.linear("embeddings.patch_embedding", "patch_embed") | source.blocks(settings.num_hidden_layers, BLOCK)
    return tensors | {"pos_embed": resampled_positions(positions, prefix, image_size // settings.patch_size, antialias=False)}


def _pool(source: SourceTensors, width: int) -> dict[str, Tensor]:
    """Return SigLIP's head. Queries, keys and values share one matrix; the probe's query is the same for every image."""
    weight, bias = source.take("head.attention.in_proj_weight"), source.take("head.attention.in_proj_bias")
    query = source.take("head.probe")[0] @ weight[:width].T + bias[:width]
    parts = source.linear("head.attention.out_proj", "pool.proj") | source.linear("head.layernorm", "pool.norm")
    parts |= source.linear("head.mlp.fc1", "pool.fc1") | source.linear("head.mlp.fc2", "pool.fc2")
    return attention_pool(query, {"pool.kv.weight": weight[width:], "pool.kv.bias": bias[width:]}, parts)


def _converted(
    tensors: dict[str, Tensor], settings: _Clip, image_size: int, labels: tuple[str, ...], origin: str, **parts: Any
) -> Converted:
    ratio = settings.intermediate_size / settings.hidden_size
    return Converted(
        ViTConfig.uniform(**shape(settings, image_size, ratio, origin), classes=len(labels), **parts), tensors, labels
    )
