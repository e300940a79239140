"""The MLPs of a block, by kind."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitnla.common.registry import Registry
from vitnla.model.config import Activation, BlockConfig, ViTConfig
from vitnla.model.layers.linear import linears


def activation(name: Activation, x: Tensor) -> Tensor:
    """Apply the elementwise activation of that name in the config."""
    if name == "gelu":
        return F.gelu(x)
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if name == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.relu(x)


class Mlp(nn.Module):
    """MLP fc2(hidden(x)); subclasses define the hidden units."""

    def __init__(self, model: ViTConfig, block: BlockConfig) -> None:
        super().__init__()
        self.act: Activation = model.activation
        self.fc1, self.fc2 = linears(block.mlp, model.dim, block.ranks)

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, N, dim] -> [B, N, dim]."""
        out: Tensor = self.fc2(self.hidden(x))
        return out

    def hidden(self, x: Tensor) -> Tensor:
        """Compute the input of `fc2`: [B, N, dim] -> [B, N, mlp_dim]."""
        raise NotImplementedError


MLPS: Registry[Callable[[ViTConfig, BlockConfig], Mlp]] = Registry("MLP layer")
"""MLP layers by the kind of the block's MLP."""


class PlainMlp(Mlp):
    """fc2(act(fc1(x)))."""

    def hidden(self, x: Tensor) -> Tensor:
        """Compute the input of `fc2`: [B, N, dim] -> [B, N, mlp_dim]."""
        return activation(self.act, self.fc1(x))


MLPS.add("plain", PlainMlp)
