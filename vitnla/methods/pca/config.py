"""Settings of `pca`."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.methods.budget_settings import Allocation, check_share, with_default_target

DEFAULT_TARGET_MACS = 0.85


class PcaConfig(Record):
    """Widths of the heads: `qk_dim` and `v_dim` in every block, or the widths within `target_macs` (0.85 where none is given).

    `target_macs` is the share of the MACs of all encoder linears, of which attention is usually one third.
    """

    qk_dim: int | None = Field(default=None, ge=1)
    """Width of queries and keys per head; null keeps it where `v_dim` is given."""
    v_dim: int | None = Field(default=None, ge=1)
    """Width of values per head; null keeps it where `qk_dim` is given."""
    target_macs: float | None = None
    allocation: Allocation = "knapsack"
    """Distribution of `target_macs` over blocks: uniform, or by the least loss."""
    width_multiple: int = Field(default=8, ge=1)
    """Widths chosen by `target_macs` are multiples of this, for fast GEMM kernels."""

    @model_validator(mode="before")
    @classmethod
    def _default_target(cls, values: Any) -> Any:
        return with_default_target(values, ("qk_dim", "v_dim"), DEFAULT_TARGET_MACS)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.target_macs is not None and (self.qk_dim is not None or self.v_dim is not None):
            raise InputError("expected target_macs or widths of heads, got both", "leave out target_macs, or qk_dim and v_dim")
        check_share("target_macs", self.target_macs)
        return self
