"""DINOv2 in the transformers format, with and without registers, with a classifier or without one."""

from __future__ import annotations

from pathlib import Path

import torch

from vitnla.common.errors import InputError
from vitnla.model.config import Pooling, ViTConfig
from vitnla.sources.tensors import BlockNames, Converted, SourceTensors, embedding_labels, identity_head, resampled_positions
from vitnla.sources.transformers.settings import Encoder, class_labels, first_rows, shape

_LAYER = "encoder.layer.{}"
BLOCK = BlockNames(
    qkv=tuple(f"{_LAYER}.attention.attention.{part}" for part in ("query", "key", "value")),
    proj=f"{_LAYER}.attention.output.dense", norm1=f"{_LAYER}.norm1", norm2=f"{_LAYER}.norm2", fc1=f"{_LAYER}.mlp.fc1",
    fc2=f"{_LAYER}.mlp.fc2", scales=(f"{_LAYER}.layer_scale1.lambda1", f"{_LAYER}.layer_scale2.lambda1"),
)  # fmt: skip


class _Dinov2(Encoder):
    model_type: str
    mlp_ratio: float
    use_swiglu_ffn: bool = False
    num_register_tokens: int = 0


def convert_dinov2(config_file: Path, source: SourceTensors, image_size: int, origin: str) -> Converted:
    """Convert DINOv2. Positions are resampled to `image_size` as in transformers, which uses antialiasing with registers.

    Raises:
        InputError: a part is not supported, or a weight is missing or left over.
    """
    settings = _Dinov2.read(config_file)
    if settings.use_swiglu_ffn:
        raise InputError(f"{origin}: unsupported use_swiglu_ffn true (a gated MLP)", "supported: use_swiglu_ffn false")
    with_registers = settings.model_type == "dinov2_with_registers"
    registers = settings.num_register_tokens if with_registers else 0
    source.without_prefix(f"{settings.model_type}.")
    source.drop("embeddings.mask_token")  # of pretraining only
    prefix = source.take("embeddings.cls_token")[0]
    positions = source.take("embeddings.position_embeddings")[0]
    positions = resampled_positions(positions, 1, image_size // settings.patch_size, antialias=with_registers)
    if registers:  # they stand between the class token and the patches, and have no position
        prefix = torch.cat([prefix, source.take("embeddings.register_tokens")[0]])
        positions = torch.cat([positions[:1], positions.new_zeros(registers, positions.shape[1]), positions[1:]])
    tensors = source.linear("embeddings.patch_embeddings.projection", "patch_embed") | {"prefix": prefix, "pos_embed": positions}
    tensors |= source.blocks(settings.num_hidden_layers, BLOCK) | source.linear("layernorm", "norm")
    pooling: Pooling = "cls"
    if settings.id2label is None and "classifier.weight" not in source:
        head, labels = identity_head(settings.hidden_size), embedding_labels(settings.hidden_size)
    else:
        head, classes = first_rows(source, "classifier")
        labels, pooling = class_labels(settings.id2label, classes, origin), "cls+mean"
    source.done()
    config = ViTConfig.uniform(
        **shape(settings, image_size, settings.mlp_ratio, origin), classes=len(labels), registers=registers, pooling=pooling,
        layer_scale=True,
    )  # fmt: skip
    return Converted(config, tensors | head, labels)
