"""The row that every method reports for every encoder linear."""

from __future__ import annotations

from torch import Tensor, nn

from vitnla.calibration.statistics import LinearStatistics
from vitnla.common.measures import LayerRow
from vitnla.linalg.moments import Affine
from vitnla.linalg.moments import relative_error as moment_error
from vitnla.model.config import LinearName, ViTConfig
from vitnla.model.cost import layer_macs, layer_parameters


def layer_row(
    config: ViTConfig, block: int, name: LinearName, relative_error: float = 0.0, retained_energy: float = 1.0,
    *, dense: ViTConfig | None = None,
) -> LayerRow:  # fmt: skip
    """Return the row of one linear of the new model's `config`; the defaults are for an unchanged linear.

    `dense` is the source model's config, needed where widths differ.
    """
    dense = dense or config
    shape = config.blocks[block].linear_shapes(config.dim)[name]
    rank = getattr(config.blocks[block].ranks, name)
    return LayerRow(
        block=block, linear=name, rank=rank, full_rank=min(shape), macs=layer_macs(config, block, name),
        parameters=layer_parameters(config, block, name), relative_error=relative_error, retained_energy=retained_energy,
        shape=shape, dense_shape=dense.blocks[block].linear_shapes(dense.dim)[name],
    )  # fmt: skip


def relative_error(linear: nn.Linear, weight: Tensor, bias: Tensor, moments: LinearStatistics) -> float:
    """Return `vitnla.linalg.moments.relative_error` of `weight` [out, in] and `bias` [out], float64, in place of `linear`."""
    return moment_error(affine(linear), Affine(weight, bias), moments)


def affine(linear: nn.Linear) -> Affine[Tensor]:
    """Return the weight and bias of a linear without their gradients; not copied."""
    return Affine(linear.weight.detach(), linear.bias.detach())
