"""Tensor renaming for adapters: source tensors are taken by name, fused and renamed to canonical ones, none left over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vitnla.common.errors import InputError
from vitnla.model.config import Activation, ViTConfig
from vitnla.sources.state_dict import shown

ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu",
}  # fmt: skip
"""Activations by their names in transformers."""


@dataclass(frozen=True)
class Converted:
    """A source model in canonical terms: a config, weights of its shapes, and class names in the order of the outputs."""

    config: ViTConfig
    tensors: dict[str, Tensor]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class BlockNames:
    """Names of one encoder block's parts in the source, `{}` standing for the block's number.

    `qkv` is one linear, or those of queries, keys and values; `scales` are the two LayerScale vectors, where there are any.
    """

    qkv: tuple[str, ...]
    proj: str
    norm1: str
    norm2: str
    fc1: str
    fc2: str
    scales: tuple[str, str] | None = None


class SourceTensors:
    """The tensors of a source in float32; each is taken once, and `done` raises if any is left.

    Args:
        tensors: by their names in the source.
        origin: the file or model, for errors.
        owner: what the tensors should be the weights of, for errors.
    """

    def __init__(self, tensors: Mapping[str, Tensor], origin: str, owner: str) -> None:
        self._left = {name: tensor.detach().float() for name, tensor in tensors.items()}
        self._origin, self._owner = origin, owner

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str) -> Tensor:
        """Take the tensor of that name.

        Raises:
            InputError: there is none.
        """
        if name not in self._left:
            prefix = next((other.removesuffix(name) for other in self._left if other.endswith(f".{name}")), None)
            hint = f"expected the weights of {self._owner}" if prefix is None else (
                f"the prefix '{prefix}' would have fitted: --weights-key {prefix.rstrip('.')}"
            )  # fmt: skip
            found = f"; found {shown(self._left)}" if self._left else ""
            raise InputError(f"{self._origin}: expected weight '{name}', which is missing{found}", hint)
        return self._left.pop(name)

    def linear(self, old: str, new: str) -> dict[str, Tensor]:
        """Take weight and bias of a linear, norm or convolution under its new name; a missing bias is zero."""
        return self.joined((old,), new)

    def joined(self, parts: Iterable[str], new: str) -> dict[str, Tensor]:
        """Take several linears, concatenated into one; missing biases are zero."""
        weights, biases = [], []
        for part in parts:
            weights.append(self.take(f"{part}.weight"))
            biases.append(self._left.pop(f"{part}.bias", weights[-1].new_zeros(len(weights[-1]))))
        return {f"{new}.weight": torch.cat(weights), f"{new}.bias": torch.cat(biases)}

    def blocks(self, depth: int, names: BlockNames) -> dict[str, Tensor]:
        """Take every encoder block under its canonical names."""
        tensors: dict[str, Tensor] = {}
        for index in range(depth):
            tensors |= self.joined((part.format(index) for part in names.qkv), f"blocks.{index}.attn.qkv")
            parts = {
                "attn.proj": names.proj,
                "norm1": names.norm1,
                "norm2": names.norm2,
                "mlp.fc1": names.fc1,
                "mlp.fc2": names.fc2,
            }
            for new, old in parts.items():
                tensors |= self.linear(old.format(index), f"blocks.{index}.{new}")
            for number, scale in enumerate(names.scales or (), start=1):
                tensors[f"blocks.{index}.ls{number}.gamma"] = self.take(scale.format(index))
        return tensors

    def drop(self, *prefixes: str) -> None:
        """Drop tensors that only pretraining or another tower uses."""
        self._left = {name: tensor for name, tensor in self._left.items() if not name.startswith(prefixes)}

    def without_prefix(self, prefix: str) -> None:
        """Rename `prefix.x` to `x`, as in the base model's own checkpoints."""
        self._left = {name.removeprefix(prefix): tensor for name, tensor in self._left.items()}

    def done(self) -> None:
        """Check that no tensor is left.

        Raises:
            InputError: names the first tensor that is no part of the model.
        """
        if self._left:
            message = f"{self._origin}: expected the weights of {self._owner}, found {shown(self._left)} besides"
            raise InputError(message, "name the kind of model that the weights are of, or save them without these")


def identity_head(width: int) -> dict[str, Tensor]:
    """Return an identity head for a tower without a classifier, whose output is the embedding itself."""
    return {"head.weight": torch.eye(width), "head.bias": torch.zeros(width)}


def embedding_labels(width: int) -> tuple[str, ...]:
    """Return names of the outputs of a tower without a classifier."""
    return tuple(f"feature {index}" for index in range(width))


def numbered_labels(classes: int) -> tuple[str, ...]:
    """Return numbered class names, for a source without names."""
    return tuple(f"class {index}" for index in range(classes))


def averaged_heads(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return one head over two concatenated tokens that gives the mean of a head on each (DeiT's, with pooling `cls+dist`)."""
    weight = torch.cat([first["head.weight"], second["head.weight"]], dim=1)
    return {"head.weight": weight / 2, "head.bias": (first["head.bias"] + second["head.bias"]) / 2}


def attention_pool(query: Tensor, kv: Mapping[str, Tensor], parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the canonical attention pool of query [dim], `kv` weight and bias, and proj, norm, fc1 and fc2 by canonical name."""
    return {"pool.query": query.flatten(), **kv, **parts}


def with_prefix_positions(patches: Tensor, prefix: int) -> Tensor:
    """Prepend zeros to positions [patches, dim] for `prefix` tokens that have none in the source."""
    return torch.cat([patches.new_zeros(prefix, patches.shape[1]), patches])


def resampled_positions(table: Tensor, prefix: int, side: int, *, antialias: bool) -> Tensor:
    """Resample positions [prefix + n², dim] to side² patches, bicubically as the libraries do; unchanged where n is `side`.

    Raises:
        InputError: the grid in the table is not square.
    """
    old = round((len(table) - prefix) ** 0.5)
    if old * old != len(table) - prefix:
        found = f"{len(table) - prefix} positions"
        raise InputError(
            f"expected positions of a square grid of patches, got {found}", "images that are not square are not supported"
        )
    if old == side:
        return table
    grid = table[prefix:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    new = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([table[:prefix], new.permute(0, 2, 3, 1).reshape(side * side, -1)])
