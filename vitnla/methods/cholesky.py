"""Narrower MLPs: pivoted Cholesky chooses the hidden units to keep, and fc2 is fitted anew for those.

With C the covariance of fc2's input x, D the norms of fc2's columns, and S the first pivots of D C D (Higham 1990):

    fc1' = fc1[S],  fc2' = fc2 C[:, S] (C[S, S] + lambda I)^-1,  b2' = b2 + fc2 mu - fc2' mu_S

so that x is replaced by its Nystrom interpolation from the units kept (Williams & Seeger 2001), best for the covariance.
Column selection of activations by a pivoted factorisation, with the fit folded into the next layer, is that of Chee et al.
2022 ("Model Preserving Compression for Neural Networks", NeurIPS), who use QR.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from vitnla.allocation import WidthOptions
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.methods.base import METHODS, Decomposition, Method
from vitnla.methods.narrow_mlp import DAMPING, NarrowMlp, narrow_mlp
from vitnla.methods.narrowed import narrowed_model
from vitnla.methods.targets import Allocation, check_share, require_statistics, widths_within, with_default_target
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer

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


def apply(model: VisionTransformer, statistics: Statistics | None, config: CholeskyConfig) -> Decomposition:
    """Narrow the MLP of every block; attention stays as it is.

    Raises:
        InputError: there are no statistics, an MLP is low-rank, a number is not finite, or the target cannot be attained.
    """
    statistics = require_statistics("cholesky", statistics)
    mlps = [narrow_mlp(model, block, statistics, config.damping) for block in range(len(model.config.blocks))]
    widths = _widths(mlps, model.config, config)
    return narrowed_model(model, {block: mlp.at(width) for block, (mlp, width) in enumerate(zip(mlps, widths, strict=True))})


def _widths(mlps: list[NarrowMlp], shape: ViTConfig, config: CholeskyConfig) -> list[int]:
    step = config.width_multiple
    if config.keep is not None:
        return [min(block.mlp_dim, max(1, round(config.keep * block.mlp_dim / step)) * step) for block in shape.blocks]
    assert config.target_macs is not None  # for the type checker: the config fills it in
    unit = 2 * shape.dim * shape.tokens  # a row of fc1 and a column of fc2
    layers = [WidthOptions(unit, mlp.losses.numpy()) for mlp in mlps]
    return widths_within(layers, shape, config.target_macs, config.allocation, step)


METHODS.add(
    "cholesky",
    Method(
        "cholesky", "deployable", "Narrower MLPs: units chosen by pivoted Cholesky, fc2 refitted", CholeskyConfig, apply,
        lambda config: True,
    ),
)  # fmt: skip
