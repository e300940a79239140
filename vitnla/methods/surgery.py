"""A new model from an old one, with some linears replaced by low-rank pairs. The old one is never touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.linalg import Factors
from vitnla.model.checkpoint import build
from vitnla.model.config import LinearName, ViTConfig
from vitnla.model.vit import VisionTransformer

Key = tuple[int, LinearName]


@dataclass(frozen=True)
class LowRank:
    """What takes a dense linear's place: y = U (V x) + bias."""

    factors: Factors
    bias: Tensor


def dense_linear(model: VisionTransformer, key: Key) -> nn.Linear:
    """A linear that has not been decomposed yet.

    Raises:
        InputError: it has.
    """
    linear = model.linear(*key)
    if not isinstance(linear, nn.Linear):
        hint = "decompose the dense model instead"
        raise InputError(f"block {key[0]} {key[1]}: expected a dense linear, got a low-rank one", hint)
    return linear


def with_low_rank(model: VisionTransformer, replacements: Mapping[Key, LowRank]) -> VisionTransformer:
    """A copy of `model`, in evaluation mode, in which each linear named in `replacements` is low-rank."""
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for (block, name), new in replacements.items():
        prefix = f"blocks.{block}.{'attn' if name in ('qkv', 'proj') else 'mlp'}.{name}"
        del tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"]
        tensors |= {f"{prefix}.U.weight": new.factors.U, f"{prefix}.V.weight": new.factors.V, f"{prefix}.U.bias": new.bias}
    ranks = {key: new.factors.rank for key, new in replacements.items()}
    return build(_with_ranks(model.config, ranks), tensors, "decomposed model")


def _with_ranks(config: ViTConfig, ranks: Mapping[Key, int]) -> ViTConfig:
    blocks = []
    for index, block in enumerate(config.blocks):
        changed = block.ranks.model_copy(update={name: rank for (at, name), rank in ranks.items() if at == index})
        blocks.append(block.model_copy(update={"ranks": changed}))
    return config.model_copy(update={"blocks": tuple(blocks)})
