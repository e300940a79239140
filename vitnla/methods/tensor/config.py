"""Settings of `tensor`."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.methods.budget_settings import check_share, with_default_target

DEFAULT_TARGET_MACS = 0.85


class TensorConfig(Record):
    """Sizes of the two modes: `head_dim` and `rank` in every block, or those within `target_macs` (0.85 where none is given).

    `target_macs` is the share of the MACs of all encoder linears, of which attention is usually one third.
    """

    head_dim: int | None = Field(default=None, ge=1)
    """Width of queries, keys and values per head; null keeps it where `rank` is given."""
    rank: int | None = Field(default=None, ge=1)
    """Rank of qkv; dense if null, or where the rank would not save MACs."""
    target_macs: float | None = None
    width_multiple: int = Field(default=8, ge=1)
    """Widths and ranks chosen by `target_macs` are multiples of this, for fast GEMM kernels."""

    @model_validator(mode="before")
    @classmethod
    def _default_target(cls, values: Any) -> Any:
        return with_default_target(values, ("head_dim", "rank"), DEFAULT_TARGET_MACS)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.target_macs is not None and (self.head_dim is not None or self.rank is not None):
            raise InputError("expected target_macs or sizes, got both", "leave out target_macs, or head_dim and rank")
        check_share("target_macs", self.target_macs)
        return self
