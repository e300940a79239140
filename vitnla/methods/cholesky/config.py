"""The settings of `cholesky`, and the widths that they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from vitnla.allocation import WidthOptions
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.methods.budget_settings import Allocation, check_share, widths_within, with_default_target

DAMPING = 1e-6
"""Ridge of the fit, relative to the mean variance of the units that are kept."""
DEFAULT_TARGET_MACS = 0.7


class CholeskyConfig(Record):
    """How many hidden units to keep: `keep` of every block, or what `target_macs` allows (0.7 where neither is given).

    `target_macs` is the share of the MACs of all encoder linears, of which the MLPs are usually two thirds.
    """

    keep: float | None = None
    target_macs: float | None = None
    allocation: Allocation = "uniform"
    """How `target_macs` becomes widths: alike in all blocks, or where a first-order estimate says that they lose least."""
    width_multiple: int = Field(default=8, ge=1)
    """Widths are multiples of this, which GEMM kernels run best at."""
    damping: float = Field(default=DAMPING, gt=0)
    """Lambda, relative to the mean variance of the units kept."""

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


def choose_widths(layers: Sequence[WidthOptions], dense_macs: int, config: CholeskyConfig) -> list[int]:
    """How many hidden units each MLP keeps.

    Args:
        layers: the MLPs.
        dense_macs: MACs per image of all encoder linears, those of the MLPs included.
        config: see `CholeskyConfig`.

    Raises:
        InputError: the target cannot be attained by the MLPs alone.
    """
    step = config.width_multiple
    if config.keep is not None:
        return [min(layer.full, max(1, round(config.keep * layer.full / step)) * step) for layer in layers]
    assert config.target_macs is not None  # for the type checker: the config fills it in
    return widths_within(layers, dense_macs, config.target_macs, config.allocation, step)
