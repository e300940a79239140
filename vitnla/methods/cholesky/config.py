"""Settings of `cholesky`, and the choice of MLP widths for a torch model or an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from vitnla.allocation import WidthOptions
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.linalg.arrays import A, to_numpy
from vitnla.linalg.mlp_curve import MlpCurve
from vitnla.methods.budget_settings import Allocation, check_share, widths_within, with_default_target

DAMPING = 1e-6
"""Ridge of the fit, relative to the mean variance of the units that are kept."""
DEFAULT_TARGET_MACS = 0.7


class CholeskyConfig(Record):
    """Hidden units to keep: the share `keep` in every block, or as many as `target_macs` allows (0.7 where neither is given).

    `target_macs` is the share of the MACs of all encoder linears, of which the MLPs are usually two thirds.
    """

    keep: float | None = None
    target_macs: float | None = None
    allocation: Allocation = "uniform"
    """Distribution of `target_macs` over blocks: uniform, or by the least loss of a first-order estimate."""
    width_multiple: int = Field(default=8, ge=1)
    """Widths are multiples of this, for fast GEMM kernels."""
    damping: float = Field(default=DAMPING, gt=0)
    """Ridge lambda, relative to the mean variance of the units kept."""

    @model_validator(mode="before")
    @classmethod
    def _default_target(cls, values: Any) -> Any:
        return with_default_target(values, ("keep",), DEFAULT_TARGET_MACS)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.keep is not None and self.target_macs is not None:
            raise InputError("expected one of keep and target_macs, got both", "leave out one")
        check_share("keep", self.keep)
        check_share("target_macs", self.target_macs)
        return self


def choose_widths(curves: Sequence[MlpCurve[A]], tokens: Sequence[int], dense_macs: int, config: CholeskyConfig) -> list[int]:
    """Return how many hidden units each MLP keeps.

    Args:
        curves: the MLPs at every width.
        tokens: how many tokens each sees per image.
        dense_macs: MACs per image of all encoder linears, those of the MLPs included.
        config: see `CholeskyConfig`.

    Raises:
        InputError: the target cannot be attained by the MLPs alone.
    """
    step = config.width_multiple
    if config.keep is not None:
        return [min(curve.full, max(1, round(config.keep * curve.full / step)) * step) for curve in curves]
    assert config.target_macs is not None  # for the type checker: the config fills it in
    # A unit is a row of the first linear and a column of the second.
    layers = [
        WidthOptions(count * (curve.first.shape[1] + curve.second.shape[0]), to_numpy(curve.losses))
        for curve, count in zip(curves, tokens, strict=True)
    ]
    return widths_within(layers, dense_macs, config.target_macs, config.allocation, step)
