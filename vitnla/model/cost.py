"""What the encoder's linears cost: multiply-accumulates per image, and parameters."""

from __future__ import annotations

from vitnla.common.measures import Cost
from vitnla.model.config import LINEARS, LinearName, ViTConfig
from vitnla.model.config.parts import linear_macs, linear_parameters

__all__ = ["encoder_macs", "encoder_parameters", "layer_macs", "layer_parameters", "linear_macs", "linear_parameters"]


def layer_macs(config: ViTConfig, block: int, name: LinearName) -> int:
    """MACs per image of one linear; `qkv` includes what takes the place of a projection, such as X_h L_h of `cholesky`.

    What every attention does with queries, keys and values is not counted, nor is an online decomposition.
    """
    chosen = config.blocks[block]
    return config.tokens * chosen.part(name).macs(name, config.dim, getattr(chosen.ranks, name))


def layer_parameters(config: ViTConfig, block: int, name: LinearName) -> int:
    """Weights and bias of one linear; `qkv` includes the parameters of `symmetric` and `cholesky` attention."""
    chosen = config.blocks[block]
    return chosen.part(name).parameters(name, config.dim, getattr(chosen.ranks, name))


def encoder_macs(model: ViTConfig, dense: ViTConfig) -> Cost:
    """MACs per image over the encoder's linears, of `model` and of the `dense` source that it was made from."""
    return Cost(dense=_total_macs(dense), model=_total_macs(model))


def encoder_parameters(model: ViTConfig, dense: ViTConfig) -> Cost:
    """Parameters of the encoder's linears, biases included, of `model` and of its `dense` source."""
    return Cost(dense=_total_parameters(dense), model=_total_parameters(model))


def _total_macs(config: ViTConfig) -> int:
    return sum(layer_macs(config, block, name) for block in range(len(config.blocks)) for name in LINEARS)


def _total_parameters(config: ViTConfig) -> int:
    return sum(layer_parameters(config, block, name) for block in range(len(config.blocks)) for name in LINEARS)
