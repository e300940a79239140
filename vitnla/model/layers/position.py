"""Position tables added to the embedded tokens, by kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from vitnla.common.registry import Registry
from vitnla.model.config import ViTConfig

TABLES: Registry[Callable[[ViTConfig], nn.Parameter | None]] = Registry("position layer")
"""The table [tokens, dim] by kind of position, or None for a kind that acts inside the attention. A model with positions of
a kind that is not here cannot be built, so no attention runs without positions that its config asks for."""


def learned_table(config: ViTConfig) -> nn.Parameter:
    """Return a zero table [tokens, dim] with a vector for every token, prefix tokens included."""
    return nn.Parameter(torch.zeros(config.tokens, config.dim))


TABLES.add("learned", learned_table)
