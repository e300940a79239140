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
    """Budget, as `target_macs` (0.55 where neither is given) or `target_latency`, and the effort of the search."""

    target_macs: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the MACs of the encoder's linears to keep."""
    target_latency: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share to keep of the predicted time of the encoder's linears, attentions and activations; norms and residuals excluded."""
    latency_model: LatencyModel | None = None
    """Model that predicts the time; `vitdeploy export` measures one where none is given."""
    width_multiple: Annotated[int, Field(ge=1)] = 8
    """Ranks and widths of heads are multiples of this, and those of MLPs of four times this, which GEMM kernels run best at."""
    probe_images: Annotated[int, Field(ge=1)] = 64
    """Calibration images used to measure every kind of cut on every block."""
    refit: bool = True
    """True to refit the last linear of every branch on the compressed model (see `refit`)."""
    refit_images: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of calibration images for the refit; None is all. Time is proportional; more images lose less."""
    damping: Annotated[float, Field(gt=0)] = DAMPING
    """Damping of the refit, see `vitnla.methods.parts.refit.DAMPING`."""

    @model_validator(mode="before")
    @classmethod
    def _default(cls, values: Any) -> Any:
        return with_default_target(values, ("target_latency",), DEFAULT_TARGET)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.target_macs is not None and self.target_latency is not None:
            raise InputError("expected one of target_macs and target_latency, got both", "leave out one")
        return self
