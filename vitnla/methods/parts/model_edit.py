"""Copies of a model with some linears replaced by narrower or low-rank ones. The original is never changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.linalg.moments import Affine, LowRankAffine
from vitnla.model.checkpoint import build, fill
from vitnla.model.config import BlockConfig, LinearName, Online, ViTConfig
from vitnla.model.layers import Block
from vitnla.model.vit import VisionTransformer

Key = tuple[int, LinearName]
Dense = Affine[Tensor]
"""A linear y = W x + b of a model."""
LowRank = LowRankAffine[Tensor]
"""A low-rank linear y = U (V x) + bias that replaces a dense one."""


@dataclass(frozen=True)
class BlockChange:
    """New linears of one block with their widths and kinds; None or absent means unchanged."""

    linears: Mapping[LinearName, Dense | LowRank]
    qk_dim: int | None = None
    v_dim: int | None = None
    mlp_dim: int | None = None
    attention: str | None = None
    """New kind of the attention, with its current widths."""
    online: Online | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    """Parameters of the new kind beside its linears, by name in the block, such as `attn.key_scale`."""

    def __or__(self, other: BlockChange) -> BlockChange:
        """Combine both changes; `other` takes precedence."""
        parameters = {**self.parameters, **other.parameters}
        return BlockChange({**self.linears, **other.linears}, **{**self.fields, **other.fields}, parameters=parameters)

    @property
    def fields(self) -> dict[str, Any]:
        """Return the changed widths and kinds, by their names in the stored form of `BlockConfig`."""
        names = ("qk_dim", "v_dim", "mlp_dim", "attention", "online")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def dense_linear(model: VisionTransformer, key: Key) -> nn.Linear:
    """Return a linear of the model that is dense.

    Raises:
        InputError: it has been decomposed already.
    """
    linear = model.linear(*key)
    if not isinstance(linear, nn.Linear):
        hint = "decompose the dense model instead"
        raise InputError(f"block {key[0]} {key[1]}: expected a dense linear, got a low-rank one", hint)
    return linear


def with_blocks(model: VisionTransformer, changes: Mapping[int, BlockChange]) -> VisionTransformer:
    """Return a copy of `model`, in evaluation mode, with the blocks named in `changes` changed.

    Raises:
        InputError: a new weight does not have the shape that the changed widths ask for, or is not finite.
    """
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for index, change in changes.items():
        own = f"blocks.{index}."
        block = {name.removeprefix(own): tensor for name, tensor in tensors.items() if name.startswith(own)}
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(own)}
        tensors |= {own + name: tensor for name, tensor in _changed_tensors(block, change).items()}
    blocks = [_changed(block, changes[index]) if index in changes else block for index, block in enumerate(model.config.blocks)]
    return build(ViTConfig.model_validate({**dict(model.config), "blocks": blocks}), tensors, "decomposed model")


def changed_block(model: VisionTransformer, index: int, change: BlockChange) -> Block:
    """Return the block that `with_blocks` would make, without building the model, so that many changes can be tried.

    Raises:
        InputError: a new weight does not have the shape that the changed widths ask for, or is not finite.
    """
    config = _changed(model.config.blocks[index], change)
    with torch.device("meta"):
        block = Block(model.config, config)
    fill(block, _changed_tensors(model.blocks[index].state_dict(), change), f"decomposed block {index}")
    return block


def with_low_rank(model: VisionTransformer, replacements: Mapping[Key, LowRank]) -> VisionTransformer:
    """Return a copy of `model`, in evaluation mode, in which each linear named in `replacements` is low-rank."""
    blocks = {block for block, _ in replacements}
    return with_blocks(
        model, {at: BlockChange({name: new for (block, name), new in replacements.items() if block == at}) for at in blocks}
    )


def _changed_tensors(block: Mapping[str, Tensor], change: BlockChange) -> dict[str, Tensor]:
    """Return the tensors of a block after a change, by their names in it."""
    tensors = dict(block)
    for name, new in change.linears.items():
        prefix = f"{'attn' if name in ('qkv', 'proj') else 'mlp'}.{name}."
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(prefix)}
        # A clone, because what is new may be a part of what was.
        tensors |= {prefix + part: tensor.detach().clone() for part, tensor in _parameters(new)}
    return tensors | {name: tensor.detach().clone() for name, tensor in change.parameters.items()}


def _parameters(new: Dense | LowRank) -> Iterator[tuple[str, Tensor]]:
    if isinstance(new, Affine):
        yield from (("weight", new.weight), ("bias", new.bias))
    else:
        yield from (("U.weight", new.factors.U), ("V.weight", new.factors.V), ("U.bias", new.bias))


def _changed(block: BlockConfig, change: BlockChange) -> BlockConfig:
    ranks: dict[str, int | None] = {
        name: new.factors.rank if isinstance(new, LowRankAffine) else None for name, new in change.linears.items()
    }
    return block.changed(**change.fields, ranks=block.ranks.model_copy(update=ranks))
