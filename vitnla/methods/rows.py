"""The row that every method reports for every encoder linear."""

from __future__ import annotations

import math
import sys

from torch import Tensor, nn

from vitnla.calibration.statistics import LinearStatistics
from vitnla.common.measures import LayerRow
from vitnla.linalg import output_error
from vitnla.model.config import LinearName, ViTConfig
from vitnla.model.cost import layer_macs, layer_parameters


def layer_row(
    config: ViTConfig, block: int, name: LinearName, relative_error: float = 0.0, retained_energy: float = 1.0,
    *, dense: ViTConfig | None = None,
) -> LayerRow:  # fmt: skip
    """The row of one linear of the new model's `config`, by default of one that was left as it was.

    `dense` is the config that it was made from, where widths differ from it.
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
    """Root of the mean squared output error over that of predicting the mean output, both exact from the moments.

    Args:
        linear: the dense one.
        weight: [out, in] float64; with `bias` [out], the map that takes its place, in terms of the same inputs.
        moments: those of the inputs.
    """
    old_weight, old_bias = linear.weight.detach().double(), linear.bias.detach().double()
    change = old_weight - weight
    mean_error = change @ moments.mean + old_bias - bias
    error = output_error(change, moments.covariance) + float(mean_error.square().sum())
    return math.sqrt(error / max(output_error(old_weight, moments.covariance), sys.float_info.min))
