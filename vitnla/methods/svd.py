"""Low-rank linears: each weight as the product of two thin ones, best for the inputs that calibration saw."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from vitnla.allocation import LayerOptions, Rank, energy, knapsack, same_rank, uniform
from vitnla.calibration.statistics import LinearStatistics, Statistics
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.linalg import (
    OutputBasis,
    bias_correction,
    energies_along,
    output_basis,
    output_error,
    project,
    retained_energy,
    svd_basis,
)
from vitnla.methods.base import METHODS, Decomposition, Method
from vitnla.methods.rows import layer_row
from vitnla.methods.surgery import Key, LowRank, dense_linear, with_low_rank
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer

Weighting = Literal["none", "gram", "centered"]
Allocation = Literal["uniform", "knapsack"]
DEFAULT_TARGET_MACS = 0.65
DEFAULT_ALLOCATION: Allocation = "knapsack"


class SvdConfig(Record):
    """By which measure to cut, and how far: one of `rank`, `energy` and `target_macs` (0.65 where none is given).

    `weighting` is what an error is measured by: `none` the weights alone (Eckart & Young), `gram` the outputs on the
    calibration inputs, `centered` the same after the mean has been moved into the bias, which then is exact.
    """

    weighting: Weighting = "centered"
    rank: int | None = None
    energy: float | None = None
    target_macs: float | None = None
    allocation: Allocation = DEFAULT_ALLOCATION
    """How `target_macs` becomes ranks; `rank` and `energy` are rules of their own."""
    rank_multiple: int = Field(default=8, ge=1)
    """Ranks chosen by `energy` and `target_macs` are multiples of this, which GEMM kernels run best at."""

    @model_validator(mode="before")
    @classmethod
    def _default_target(cls, values: Any) -> Any:
        """Store the default where it applies, so that the record says what was done."""
        if isinstance(values, Mapping) and all(values.get(name) is None for name in ("rank", "energy", "target_macs")):
            return {**values, "target_macs": DEFAULT_TARGET_MACS}
        return values

    @model_validator(mode="after")
    def _usable(self) -> Self:
        given = [name for name in ("rank", "energy", "target_macs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"expected one of rank, energy and target_macs, got {' and '.join(given)}", "leave out all but one")
        if self.rank is not None and self.rank < 1:
            raise InputError(f"rank: expected at least 1, got {self.rank}", "choose a rank below every linear's full rank")
        for name in ("energy", "target_macs"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                hint = "1 keeps everything, 0.65 keeps 65 %"
                raise InputError(f"{name}: expected a share above 0 and at most 1, got {share:g}", hint)
        return self


def apply(model: VisionTransformer, statistics: Statistics | None, config: SvdConfig) -> Decomposition:
    """Replace every linear that gets a rank by its best approximation of that rank.

    Raises:
        InputError: there are no statistics, the model is decomposed already, a weight is not finite, or the ranks asked for
            cannot be had.
    """
    if statistics is None:
        raise InputError("svd: expected calibration statistics, got none", "pass calibration data with --data")
    moments = statistics.linears
    linears = {key: dense_linear(model, key) for key in model.linear_names()}
    bases = {key: _basis(linear.weight, moments[key], config.weighting) for key, linear in linears.items()}
    options = [
        _options(model.config, key, linear.weight, bases[key], moments[key], config.weighting) for key, linear in linears.items()
    ]
    ranks = dict(zip(linears, allocate(options, config), strict=True))
    replacements = {
        key: _low_rank(linears[key], bases[key], rank, moments[key], config.weighting)
        for key, rank in ranks.items()
        if rank is not None
    }
    decomposed = with_low_rank(model, replacements)
    rows = {key: layer_row(decomposed.config, *key) for key in linears}
    for key, new in replacements.items():
        kept = retained_energy(bases[key].energies, new.factors.rank)
        rows[key] = layer_row(decomposed.config, *key, _relative_error(linears[key], new, moments[key]), kept)
    return Decomposition(decomposed, tuple(rows.values()))


def allocate(options: list[LayerOptions], config: SvdConfig) -> list[Rank]:
    """The rank of every linear, by the rule that the config names."""
    if config.rank is not None:
        return same_rank(options, config.rank)
    if config.energy is not None:
        return energy(options, config.energy, config.rank_multiple)
    assert config.target_macs is not None  # for the type checker: the config fills it in
    budgeted = uniform if config.allocation == "uniform" else knapsack
    return budgeted(options, config.target_macs, config.rank_multiple)


def _basis(weight: Tensor, moments: LinearStatistics, weighting: Weighting) -> OutputBasis:
    if weighting == "none":
        return svd_basis(weight)
    return output_basis(weight, _second_moment(moments, weighting))


def _second_moment(moments: LinearStatistics, weighting: Weighting) -> Tensor:
    """That of what is lost: of the deviations from the mean where the bias makes up for the mean."""
    return moments.covariance if weighting == "centered" else moments.gram


def _options(
    config: ViTConfig, key: Key, weight: Tensor, basis: OutputBasis, moments: LinearStatistics, weighting: Weighting
) -> LayerOptions:
    block, name = key
    shape = config.blocks[block].linear_shapes(config.dim)[name]
    # What a cut direction costs is its output energy, also where the direction was chosen without looking at any input.
    losses = moments.sensitivity * energies_along(weight, basis.directions, _second_moment(moments, weighting))
    return LayerOptions(f"block {block} {name}", shape, config.tokens, basis.energies.cpu().numpy(), losses.cpu().numpy())


def _low_rank(linear: nn.Linear, basis: OutputBasis, rank: int, moments: LinearStatistics, weighting: Weighting) -> LowRank:
    weight, bias = linear.weight.detach(), linear.bias.detach()
    factors = project(weight, basis, rank)
    if weighting == "centered":
        bias = (bias.double() + bias_correction(weight, factors, moments.mean)).to(bias.dtype)
    return LowRank(factors, bias)


def _relative_error(linear: nn.Linear, new: LowRank, moments: LinearStatistics) -> float:
    """Root of the mean squared output error over that of predicting the mean output, both exact from the moments."""
    weight, bias = linear.weight.detach().double(), linear.bias.detach().double()
    change = weight - new.factors.U.double() @ new.factors.V.double()
    mean_error = change @ moments.mean + bias - new.bias.double()
    error = output_error(change, moments.covariance) + float(mean_error.square().sum())
    return math.sqrt(error / max(output_error(weight, moments.covariance), sys.float_info.min))


METHODS.add(
    "svd", Method("svd", "deployable", "Low-rank linears, best for the calibration inputs", SvdConfig, apply, lambda config: True)
)
