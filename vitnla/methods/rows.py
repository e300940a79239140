"""The row that every method reports for every encoder linear."""

from __future__ import annotations

from vitnla.common.measures import LayerRow
from vitnla.model.config import LinearName, ViTConfig
from vitnla.model.cost import linear_macs, linear_parameters


def layer_row(
    config: ViTConfig, block: int, name: LinearName, relative_error: float = 0.0, retained_energy: float = 1.0
) -> LayerRow:
    """The row of one linear of the new model's `config`, by default of one that was left as it was."""
    shape = config.blocks[block].linear_shapes(config.dim)[name]
    rank = getattr(config.blocks[block].ranks, name)
    return LayerRow(
        block=block, linear=name, rank=rank, full_rank=min(shape), macs=linear_macs(shape, rank, config.tokens),
        parameters=linear_parameters(shape, rank), relative_error=relative_error, retained_energy=retained_energy,
    )  # fmt: skip
