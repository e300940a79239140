"""Writers and readers of a ViT's residual stream, and the folds after which the stream can be rotated.

SliceGPT (Ashkboos et al. 2024, section 3): with M = I - 11^T/d, gains g and offsets c,

    LayerNorm(x) = g * RMSNorm(M x) + c.

M moves into everything that writes the stream, g and c into the linear that reads the norm. What is left, RMSNorm, commutes
with every rotation of the stream.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vitnla.calibration.statistics import LinearStatistics, Statistics
from vitnla.methods.parts.model_edit import Key
from vitnla.model.checkpoint import build
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer

Tensors = dict[str, Tensor]
READABLE = 1e-5
"""Least gain of a channel over its offset. Below, its float32 activations are the offset and rounding noise."""


@dataclass(frozen=True)
class Reader:
    """A linear that reads the stream through a norm, both by their names in the model; `key` is null where pooling begins."""

    linear: str
    norm: str
    key: Key | None


def writers(config: ViTConfig) -> Iterator[tuple[str, int]]:
    """Yield every tensor that is added to the residual stream, itself or as a factor of a product, and its axis along the stream."""
    yield from (("patch_embed.weight", 0), ("patch_embed.bias", 0))
    if config.position.has_table:
        yield "pos_embed", 1
    if config.prefix_tokens:
        yield "prefix", 1
    for block in range(len(config.blocks)):
        for linear in ("attn.proj", "mlp.fc2"):
            yield from ((f"blocks.{block}.{linear}.{part}", 0) for part in ("weight", "bias"))


def readers(config: ViTConfig) -> Iterator[Reader]:
    """Yield every linear that reads the residual stream; the head may read several concatenated copies, or an attention pool reads it."""
    for block in range(len(config.blocks)):
        yield Reader(f"blocks.{block}.attn.qkv", f"blocks.{block}.norm1", (block, "qkv"))
        yield Reader(f"blocks.{block}.mlp.fc1", f"blocks.{block}.norm2", (block, "fc1"))
    head = "head" if config.head_hidden is None else "head.0"
    yield Reader(head if config.attention_pool is None else "pool.kv", "norm", None)


def write(tensors: Tensors, config: ViTConfig, change: Callable[[Tensor], Tensor]) -> Tensors:
    """Return the tensors with `change`, from [..., dim] to [..., any], applied to every writer of the stream."""
    changed = {name: change(tensors[name].movedim(axis, -1)).movedim(-1, axis).contiguous() for name, axis in writers(config)}
    return {**tensors, **changed}


def read(weight: Tensor, dim: int, change: Tensor) -> Tensor:
    """Return a reader's weight [out, n dim] for a new stream from which `change` [dim, any] reconstructs the old one."""
    out: Tensor = weight.reshape(len(weight), -1, dim) @ change
    return out.flatten(1)


def fold_norms(model: VisionTransformer) -> VisionTransformer:
    """Return an equivalent model in float64, with `rms` norms and without LayerScale; exact up to rounding."""
    config = ViTConfig.model_validate({**dict(model.config), "norm": "rms", "layer_scale": False})
    tensors = {name: tensor.detach().to(torch.float64, copy=True) for name, tensor in model.state_dict().items()}
    for block in range(len(config.blocks)):
        for scale, linear in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            gains = tensors.pop(f"blocks.{block}.{scale}.gamma", torch.ones(config.dim, dtype=torch.float64))
            weight, bias = (f"blocks.{block}.{linear}.{part}" for part in ("weight", "bias"))
            tensors |= {weight: gains[:, None] * tensors[weight], bias: gains * tensors[bias]}
    for reader in readers(config):
        gains, offsets = tensors.pop(f"{reader.norm}.weight"), tensors.pop(f"{reader.norm}.bias")
        weight, bias = f"{reader.linear}.weight", f"{reader.linear}.bias"
        shift = read(tensors[weight], config.dim, offsets[:, None]).sum(1)
        tensors |= {bias: tensors[bias] + shift, weight: read(tensors[weight], config.dim, gains.diag())}
    tensors = write(tensors, config, lambda x: x - x.mean(-1, keepdim=True))
    return build(config, tensors, "folded model", torch.float64)


def normed_moments(model: VisionTransformer, statistics: Statistics) -> dict[str, LinearStatistics]:
    """Return the moments of the normed stream u = RMSNorm(M x) at each reader of `fold_norms(model)`, by its name.

    qkv and fc1 receive z = g * u + c, so u = (z - c) / g. A channel of zero gain gives no information, and none is
    needed: the linear does not read it, so its u is set to 0. The head's moments take a pass over the images.

    Raises:
        InputError: the statistics come without images.
    """
    tensors = model.state_dict()
    moments = {}
    for reader in readers(model.config):
        seen = _seen_by_head(model, statistics) if reader.key is None else statistics.linears[reader.key]
        moments[reader.linear] = _before_gains(seen, *(tensors[f"{reader.norm}.{part}"].double() for part in ("weight", "bias")))
    return moments


@torch.no_grad()
def _seen_by_head(model: VisionTransformer, statistics: Statistics, batch_size: int = 32) -> LinearStatistics:
    """Return the moments of the last norm's output: all encoded tokens or their pooled form; no sensitivity is measured."""
    gram = torch.zeros(model.config.dim, model.config.dim, dtype=torch.float64)
    total = torch.zeros(model.config.dim, dtype=torch.float64)
    count = 0
    for batch in torch.split(statistics.require_samples().embedded(model), batch_size):
        encoded = model.encode(batch)
        seen = model.features(encoded) if model.config.final_norm == "pooled" else model.norm(encoded).flatten(0, 1)
        seen = seen.double().cpu()
        gram += seen.T @ seen
        total += seen.sum(0)
        count += len(seen)
    return LinearStatistics(gram / count, total / count, count, math.nan)


def _before_gains(seen: LinearStatistics, gains: Tensor, offsets: Tensor) -> LinearStatistics:
    known = gains.abs() > READABLE * offsets.abs()
    inverse = torch.where(known, gains, torch.inf).reciprocal()
    mean = seen.mean - offsets
    gram = seen.covariance + mean.outer(mean)
    return LinearStatistics(inverse[:, None] * gram * inverse, inverse * mean, seen.tokens, seen.sensitivity)
