"""Settings of `svd`, and the choice of ranks for the linears of a torch model or an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from vitnla.allocation import LayerOptions, Rank, energy, knapsack, same_rank, uniform
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.linalg.arrays import A, to_numpy
from vitnla.linalg.low_rank_curve import LowRankCurve, Weighting
from vitnla.methods.budget_settings import Allocation, check_share, with_default_target

DEFAULT_TARGET_MACS = 0.65
DEFAULT_ALLOCATION: Allocation = "knapsack"


class SvdConfig(Record):
    """Error measure of the truncation, and its size: one of `rank`, `energy` and `target_macs` (0.65 where none is given).

    `weighting` is the error measure: `none` the weights alone (Eckart & Young), `gram` the outputs on the
    calibration inputs, `centered` the same after the mean has been moved into the bias, which then is exact. `cholesky` is
    `gram` by the algorithm of SVD-LLM, whitening by a Cholesky factor.
    """

    weighting: Weighting = "centered"
    rank: int | None = None
    energy: float | None = None
    target_macs: float | None = None
    allocation: Allocation = DEFAULT_ALLOCATION
    """Distribution of `target_macs` over linears; not used with `rank` and `energy`."""
    rank_multiple: int = Field(default=8, ge=1)
    """Ranks chosen by `energy` and `target_macs` are multiples of this, for fast GEMM kernels."""

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


def choose_ranks(names: Sequence[str], curves: Sequence[LowRankCurve[A]], tokens: Sequence[int], config: SvdConfig) -> list[Rank]:
    """Return the rank of every linear, `None` for dense, by the rule in the config.

    Args:
        names: names of the linears in errors.
        curves: the linears at every rank.
        tokens: how many tokens each sees per image.
        config: see `SvdConfig`.

    Raises:
        InputError: `rank` is too large for a linear, or the target cannot be attained.
    """
    options = [
        LayerOptions(name, curve.linear.shape, count, to_numpy(curve.basis.energies), to_numpy(curve.lost))
        for name, curve, count in zip(names, curves, tokens, strict=True)
    ]
    if config.rank is not None:
        return same_rank(options, config.rank)
    if config.energy is not None:
        return energy(options, config.energy, config.rank_multiple)
    assert config.target_macs is not None  # for the type checker: the config fills it in
    budgeted = uniform if config.allocation == "uniform" else knapsack
    return budgeted(options, config.target_macs, config.rank_multiple)
