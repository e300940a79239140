"""Low-rank linears: each weight as the product of two thin ones, best for the inputs that calibration saw."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from vitnla.allocation import LayerOptions, Rank, energy, knapsack, same_rank, uniform
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.methods.base import METHODS, Decomposition, Method
from vitnla.methods.low_rank import LowRankCurve, Weighting
from vitnla.methods.rows import layer_row
from vitnla.methods.surgery import Key, dense_linear, with_low_rank
from vitnla.methods.targets import Allocation, check_share, require_statistics, with_default_target
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer

DEFAULT_TARGET_MACS = 0.65
DEFAULT_ALLOCATION: Allocation = "knapsack"


class SvdConfig(Record):
    """By which measure to cut, and how far: one of `rank`, `energy` and `target_macs` (0.65 where none is given).

    `weighting` is what an error is measured by: `none` the weights alone (Eckart & Young), `gram` the outputs on the
    calibration inputs, `centered` the same after the mean has been moved into the bias, which then is exact. `cholesky` is
    `gram` by the algorithm of SVD-LLM, whitening by a Cholesky factor.
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
        return with_default_target(values, ("rank", "energy"), DEFAULT_TARGET_MACS)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        given = [name for name in ("rank", "energy", "target_macs") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"expected one of rank, energy and target_macs, got {' and '.join(given)}", "leave out all but one")
        if self.rank is not None and self.rank < 1:
            raise InputError(f"rank: expected at least 1, got {self.rank}", "choose a rank below every linear's full rank")
        check_share("energy", self.energy)
        check_share("target_macs", self.target_macs)
        return self


def apply(model: VisionTransformer, statistics: Statistics | None, config: SvdConfig) -> Decomposition:
    """Replace every linear that gets a rank by its best approximation of that rank.

    Raises:
        InputError: there are no statistics, the model is decomposed already, a weight is not finite, or the ranks asked for
            cannot be had.
    """
    moments = require_statistics("svd", statistics).linears
    curves = {key: LowRankCurve.of(dense_linear(model, key), moments[key], config.weighting) for key in model.linear_names()}
    ranks = allocate([_options(model.config, key, curve) for key, curve in curves.items()], config)
    chosen = {key: rank for key, rank in zip(curves, ranks, strict=True) if rank is not None}
    replacements = {key: curves[key].at(rank) for key, rank in chosen.items()}
    decomposed = with_low_rank(model, replacements)
    rows = {key: layer_row(decomposed.config, *key) for key in curves}
    for key, new in replacements.items():
        curve = curves[key]
        rows[key] = layer_row(decomposed.config, *key, curve.relative_error(new), curve.retained(new.factors.rank))
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


def _options(config: ViTConfig, key: Key, curve: LowRankCurve) -> LayerOptions:
    block, name = key
    shape = config.blocks[block].linear_shapes(config.dim)[name]
    return LayerOptions(f"block {block} {name}", shape, config.tokens, curve.basis.energies.numpy(), curve.lost.numpy())


METHODS.add(
    "svd", Method("svd", "deployable", "Low-rank linears, best for the calibration inputs", SvdConfig, apply, lambda config: True)
)
