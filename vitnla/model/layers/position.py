"""What a kind of position adds to the embedded tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from vitnla.common.registry import Registry
from vitnla.model.config import ViTConfig

TABLES: Registry[Callable[[ViTConfig], nn.Parameter | None]] = Registry("position layer")
"""By the kind of position: its table [tokens, dim], or None for a kind that acts inside the attention. A model with positions of
a kind that is not here cannot be built, so no attention runs without positions that its config asks for."""


def learned_table(config: ViTConfig) -> nn.Parameter:
    """A vector for every token, prefix tokens included: [tokens, dim], zero."""
    return nn.Parameter(torch.zeros(config.tokens, config.dim))


TABLES.add("learned", learned_table)
