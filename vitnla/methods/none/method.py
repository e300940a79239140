"""The registry entry of `none`. It needs no torch until a model is copied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vitnla.methods.none.config import NONE, NoneConfig
from vitnla.methods.registry import METHODS, Decomposition, Method

if TYPE_CHECKING:
    from vitnla.calibration.statistics import Statistics
    from vitnla.model.vit import VisionTransformer


def _apply(model: VisionTransformer, statistics: Statistics | None, config: NoneConfig) -> Decomposition:
    from vitnla.methods.none.apply import apply

    return apply(model, statistics, config)


METHODS.add(
    NONE,
    Method(NONE, "deployable", "The dense model, unchanged", NoneConfig, _apply, lambda config: False, works_on_graphs=True),
)
