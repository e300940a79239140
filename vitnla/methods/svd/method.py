"""The registry entry of `svd`. It needs no torch until a model is decomposed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitnla.methods.registry import METHODS, Decomposition, Method
from vitnla.methods.svd.config import SvdConfig

if TYPE_CHECKING:
    from vitnla.calibration.statistics import Statistics
    from vitnla.model.vit import VisionTransformer


def _apply(model: VisionTransformer, statistics: Statistics | None, config: SvdConfig) -> Decomposition:
    from vitnla.methods.svd.apply import apply

    return apply(model, statistics, config)


METHODS.add(
    "svd",
    Method(
        "svd", "deployable", "Low-rank linears, best for the calibration inputs", SvdConfig, _apply, lambda config: True,
        works_on_graphs=True, needs_sensitivity=lambda config: config.target_macs is not None and config.allocation == "knapsack",
    ),
)  # fmt: skip
