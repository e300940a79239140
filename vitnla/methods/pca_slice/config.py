"""Settings of `pca-slice`."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.methods.budget_settings import check_share, with_default_target

DEFAULT_TARGET_MACS = 0.75
DAMPING = 1e-4
"""Ridge of the readers' regression, relative to the mean variance of the axes that are kept."""


class PcaSliceConfig(Record):
    """Width of the residual stream: `dim`, or the width within `target_macs` (0.75 where neither is given).

    All of the encoder's linears shrink in proportion to the stream, so their MACs do too.
    """

    dim: int | None = Field(default=None, ge=1)
    target_macs: float | None = None
    width_multiple: int = Field(default=8, ge=1)
    """A width chosen by `target_macs` is a multiple of this, for fast GEMM kernels."""

    @model_validator(mode="before")
    @classmethod
    def _default_target(cls, values: Any) -> Any:
        return with_default_target(values, ("dim",), DEFAULT_TARGET_MACS)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.dim is not None and self.target_macs is not None:
            raise InputError("expected one of dim and target_macs, got both", "leave out one")
        check_share("target_macs", self.target_macs)
        return self
