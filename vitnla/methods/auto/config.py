"""Settings of `auto`."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from vitnla.allocation.latency_model import LatencyModel
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.methods.budget_settings import with_default_target
from vitnla.methods.parts.refit import DAMPING

DEFAULT_TARGET = 0.55


class AutoConfig(Record):
    """How far to cut, by `target_macs` (0.55 where neither is given) or `target_latency`, and how carefully to choose."""

    target_macs: Annotated[float, Field(gt=0, le=1)] | None = None
    """MACs of the encoder's linears to keep."""
    target_latency: Annotated[float, Field(gt=0, le=1)] | None = None
    """Predicted time of the encoder's linears, attentions and activations to keep; norms and residuals are not in it."""
    latency_model: LatencyModel | None = None
    """What predicts it; `vitdeploy export` measures it where none is given."""
    width_multiple: Annotated[int, Field(ge=1)] = 8
    """Ranks and widths of heads are multiples of this, and those of MLPs of four times this, which GEMM kernels run best at."""
    probe_images: Annotated[int, Field(ge=1)] = 64
    """Calibration images on which every kind of cut is tried on every block."""
    refit: bool = True
    """Whether the last linear of every branch is fitted anew on the compressed model (see `refit`)."""
    refit_images: Annotated[int, Field(ge=1)] | None = None
    """Calibration images of that fit, at most; all of them where None. Twice as many take twice as long, and lose less."""
    damping: Annotated[float, Field(gt=0)] = DAMPING
    """Of that fit."""

    @model_validator(mode="before")
    @classmethod
    def _default(cls, values: Any) -> Any:
        return with_default_target(values, ("target_latency",), DEFAULT_TARGET)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.target_macs is not None and self.target_latency is not None:
            raise InputError("expected one of target_macs and target_latency, got both", "leave out one")
        return self
