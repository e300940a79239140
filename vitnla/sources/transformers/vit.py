"""ViT and DeiT in the transformers format, with a classifier, with DeiT's two, or without one."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.model.config import Pooling, ViTConfig
from vitnla.sources.tensors import (
    BlockNames,
    Converted,
    SourceTensors,
    averaged_heads,
    embedding_labels,
    identity_head,
    resampled_positions,
)
from vitnla.sources.transformers.settings import Encoder, class_labels, first_rows, shape

BLOCK = BlockNames(
    qkv=tuple(f"encoder.layer.{{}}.attention.attention.{part}" for part in ("query", "key", "value")),
    proj="encoder.layer.{}.attention.output.dense", norm1="encoder.layer.{}.layernorm_before",
    norm2="encoder.layer.{}.layernorm_after", fc1="encoder.layer.{}.intermediate.dense", fc2="encoder.layer.{}.output.dense",
)  # fmt: skip


class _ViT(Encoder):
    model_type: str
    intermediate_size: int
    pooler_act: str = "tanh"


def convert_vit(config_file: Path, source: SourceTensors, image_size: int, origin: str) -> Converted:
    """Convert ViT or DeiT. Without a classifier the output is `pooler_output`, or the class token where there is none.

    Raises:
        InputError: a part is not supported, or a weight is missing or left over.
    """
    settings = _ViT.read(config_file)
    source.without_prefix(f"{settings.model_type}.")
    source.drop("embeddings.mask_token", "decoder.")
    distilled = settings.model_type == "deit"
    prefix = [source.take("embeddings.cls_token")[0]]
    if distilled:
        prefix.append(source.take("embeddings.distillation_token")[0])
    tensors = source.linear("embeddings.patch_embeddings.projection", "patch_embed") | {"prefix": torch.cat(prefix)}
    positions = source.take("embeddings.position_embeddings")[0]
    tensors["pos_embed"] = resampled_positions(positions, len(prefix), image_size // settings.patch_size, antialias=False)
    tensors |= source.blocks(settings.num_hidden_layers, BLOCK) | source.linear("layernorm", "norm")
    head, labels, pooling, hidden = _head(source, settings, origin)
    source.done()
    config = ViTConfig.uniform(
        **shape(settings, image_size, settings.intermediate_size / settings.hidden_size, origin), classes=len(labels),
        registers=int(distilled), pooling=pooling, head_hidden=hidden,
    )  # fmt: skip
    return Converted(config, tensors | head, labels)


def _head(source: SourceTensors, settings: _ViT, origin: str) -> tuple[dict[str, Tensor], tuple[str, ...], Pooling, int | None]:
    """Return head tensors, labels, pooling, and the width of a hidden layer."""
    if "cls_classifier.weight" in source:
        head = averaged_heads(source.linear("cls_classifier", "head"), source.linear("distillation_classifier", "head"))
        return head, class_labels(settings.id2label, len(head["head.weight"]), origin), "cls+dist", None
    if "classifier.weight" in source:
        head, classes = first_rows(source, "classifier")
        source.drop("pooler.")
        return head, class_labels(settings.id2label, classes, origin), "cls", None
    width = settings.hidden_size
    if "pooler.dense.weight" not in source:
        return identity_head(width), embedding_labels(width), "cls", None
    if settings.pooler_act != "tanh":
        raise InputError(f"{origin}: unsupported pooler_act '{settings.pooler_act}'", "supported: tanh")
    dense = source.linear("pooler.dense", "head.0")
    width = len(dense["head.0.weight"])
    last = {name.replace("head", "head.2"): tensor for name, tensor in identity_head(width).items()}
    return dense | last, embedding_labels(width), "cls", width
