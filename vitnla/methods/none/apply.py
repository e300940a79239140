"""The dense baseline: the model unchanged."""

from __future__ import annotations

import copy

from vitnla.calibration.statistics import Statistics
from vitnla.methods.none.config import NoneConfig
from vitnla.methods.parts.report_rows import layer_row
from vitnla.methods.registry import Decomposition
from vitnla.model.vit import VisionTransformer


def apply(model: VisionTransformer, statistics: Statistics | None, config: NoneConfig) -> Decomposition:
    """Return a copy of the model."""
    rows = tuple(layer_row(model.config, block, name) for block, name in model.linear_names())
    return Decomposition(copy.deepcopy(model), rows)
