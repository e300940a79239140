"""What the encoder's linears cost: multiply-accumulates per image, and parameters."""

from __future__ import annotations

from vitnla.common.measures import Cost
from vitnla.model.config import LINEARS, ViTConfig


def linear_macs(shape: tuple[int, int], rank: int | None, tokens: int) -> int:
    """MACs of a linear of (out, in) features over `tokens` tokens: dense, or as two GEMMs through `rank`."""
    rows, columns = shape
    return tokens * (rows * columns if rank is None else rank * (rows + columns))


def linear_parameters(shape: tuple[int, int], rank: int | None) -> int:
    """Weights and bias of the same linear."""
    return linear_macs(shape, rank, tokens=1) + shape[0]


def encoder_macs(model: ViTConfig, dense: ViTConfig) -> Cost:
    """MACs per image over the encoder's linears, of `model` and of the `dense` source that it was made from."""
    return Cost(dense=_total_macs(dense), model=_total_macs(model))


def encoder_parameters(model: ViTConfig, dense: ViTConfig) -> Cost:
    """Parameters of the encoder's linears, biases included, of `model` and of its `dense` source."""
    return Cost(dense=_total_parameters(dense), model=_total_parameters(model))


def _linears(config: ViTConfig) -> list[tuple[tuple[int, int], int | None]]:
    return [(block.linear_shapes(config.dim)[name], getattr(block.ranks, name)) for block in config.blocks for name in LINEARS]


def _total_macs(config: ViTConfig) -> int:
    return sum(linear_macs(shape, rank, config.tokens) for shape, rank in _linears(config))


def _total_parameters(config: ViTConfig) -> int:
    return sum(linear_parameters(shape, rank) for shape, rank in _linears(config))
