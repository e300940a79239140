"""The registry entry of `cholesky`. It needs no torch until a model is decomposed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitnla.methods.cholesky.config import CholeskyConfig
from vitnla.methods.registry import METHODS, Decomposition, Method

if TYPE_CHECKING:
    from vitnla.calibration.statistics import Statistics
    from vitnla.model.vit import VisionTransformer


def _apply(model: VisionTransformer, statistics: Statistics | None, config: CholeskyConfig) -> Decomposition:
    from vitnla.methods.cholesky.apply import apply

    return apply(model, statistics, config)


METHODS.add(
    "cholesky",
    Method(
        "cholesky", "deployable", "Narrower MLPs: units chosen by pivoted Cholesky, fc2 refitted", CholeskyConfig, _apply,
        lambda config: True, works_on_graphs=True,
        needs_sensitivity=lambda config: config.keep is None and config.allocation == "knapsack",
    ),
)  # fmt: skip
