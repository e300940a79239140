"""What the encoder's linears cost: multiply-accumulates per image, and parameters."""

from __future__ import annotations

from vitnla.common.measures import Cost
from vitnla.model.config import LINEARS, BlockConfig, LinearName, ViTConfig


def linear_macs(shape: tuple[int, int], rank: int | None, tokens: int) -> int:
    """MACs of a linear of (out, in) features over `tokens` tokens: dense, or as two GEMMs through `rank`."""
    rows, columns = shape
    return tokens * (rows * columns if rank is None else rank * (rows + columns))


def linear_parameters(shape: tuple[int, int], rank: int | None) -> int:
    """Weights and bias of the same linear."""
    return linear_macs(shape, rank, tokens=1) + shape[0]


def layer_macs(config: ViTConfig, block: int, name: LinearName) -> int:
    """MACs per image of one linear; `qkv` includes what takes the place of a projection, such as X_h L_h of `cholesky`.

    What every attention does with queries, keys and values is not counted, nor is an online decomposition.
    """
    shape, rank = _linear(config, block, name)
    return linear_macs(shape, rank, config.tokens) + (_query_macs(config.blocks[block]) * config.tokens if name == "qkv" else 0)


def layer_parameters(config: ViTConfig, block: int, name: LinearName) -> int:
    """Weights and bias of one linear; `qkv` includes the parameters of `symmetric` and `cholesky` attention."""
    shape, rank = _linear(config, block, name)
    return linear_parameters(shape, rank) + (_query_parameters(config.blocks[block]) if name == "qkv" else 0)


def encoder_macs(model: ViTConfig, dense: ViTConfig) -> Cost:
    """MACs per image over the encoder's linears, of `model` and of the `dense` source that it was made from."""
    return Cost(dense=_total_macs(dense), model=_total_macs(model))


def encoder_parameters(model: ViTConfig, dense: ViTConfig) -> Cost:
    """Parameters of the encoder's linears, biases included, of `model` and of its `dense` source."""
    return Cost(dense=_total_parameters(dense), model=_total_parameters(model))


def _linear(config: ViTConfig, block: int, name: LinearName) -> tuple[tuple[int, int], int | None]:
    """((out, in), rank) of one linear."""
    chosen = config.blocks[block]
    return chosen.linear_shapes(config.dim)[name], getattr(chosen.ranks, name)


def _query_macs(block: BlockConfig) -> int:
    """Per token: the triangle of `cholesky` is multiplied as a full matrix, and `symmetric` scales its keys."""
    return {"cholesky": block.heads * block.qk_dim**2, "symmetric": block.heads * block.qk_dim}.get(block.attention, 0)


def _query_parameters(block: BlockConfig) -> int:
    triangle = block.qk_dim * (block.qk_dim + 1) // 2
    return {"cholesky": block.heads * triangle, "symmetric": block.heads * block.qk_dim}.get(block.attention, 0)


def _total_macs(config: ViTConfig) -> int:
    return sum(layer_macs(config, block, name) for block in range(len(config.blocks)) for name in LINEARS)


def _total_parameters(config: ViTConfig) -> int:
    return sum(layer_parameters(config, block, name) for block in range(len(config.blocks)) for name in LINEARS)
