"""Costs of the encoder's linears: multiply-accumulates per image, and parameters."""

from __future__ import annotations

from vitnla.common.measures import Cost
from vitnla.model.config import LINEARS, LinearName, ViTConfig
from vitnla.model.config.parts import linear_macs, linear_parameters

__all__ = ["encoder_macs", "encoder_parameters", "layer_macs", "layer_parameters", "linear_macs", "linear_parameters"]


def layer_macs(config: ViTConfig, block: int, name: LinearName) -> int:
    """Return the MACs per image of one linear; `qkv` includes what replaces a projection, such as X_h L_h of `cholesky`.

    Products of queries, keys and values are not counted, nor is an online decomposition.
    """
    chosen = config.blocks[block]
    return config.tokens * chosen.part(name).macs(name, config.dim, getattr(chosen.ranks, name))


def layer_parameters(config: ViTConfig, block: int, name: LinearName) -> int:
    """Return the parameters of one linear, bias included; `qkv` includes those of `symmetric` and `cholesky` attention."""
    chosen = config.blocks[block]
    return chosen.part(name).parameters(name, config.dim, getattr(chosen.ranks, name))


def encoder_macs(model: ViTConfig, dense: ViTConfig) -> Cost:
    """Return the MACs per image of the encoder's linears, of `model` and of the `dense` source that it was made from."""
    return Cost(dense=_total_macs(dense), model=_total_macs(model))


def encoder_parameters(model: ViTConfig, dense: ViTConfig) -> Cost:
    """Return the parameters of the encoder's linears, biases included, of `model` and of its `dense` source."""
    return Cost(dense=_total_parameters(dense), model=_total_parameters(model))


def _total_macs(config: ViTConfig) -> int:
    return sum(layer_macs(config, block, name) for block in range(len(config.blocks)) for name in LINEARS)


def _total_parameters(config: ViTConfig) -> int:
    return sum(layer_parameters(config, block, name) for block in range(len(config.blocks)) for name in LINEARS)
