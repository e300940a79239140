"""The layers of the encoder. A low-rank linear is two plain linears, so every exporter and runtime knows it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitnla.model.config import Activation, BlockConfig


class LowRankLinear(nn.Module):
    """y = U (V x) + b with V: [rank, in_features], U: [out_features, rank]; two GEMMs instead of one."""

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.V = nn.Linear(in_features, rank, bias=False)
        self.U = nn.Linear(rank, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        out: Tensor = self.U(self.V(x))
        return out


def linear(in_features: int, out_features: int, rank: int | None) -> nn.Module:
    """A dense linear, or a low-rank one where a rank is given."""
    return nn.Linear(in_features, out_features) if rank is None else LowRankLinear(in_features, out_features, rank)


def activation(name: Activation, x: Tensor) -> Tensor:
    """Elementwise activation by its name in the config."""
    if name == "gelu":
        return F.gelu(x)
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if name == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.relu(x)


class Attention(nn.Module):
    """Multi-head self-attention whose queries/keys and values may differ in width.

    The scale is 1/sqrt(qk_dim); a method that narrows qk_dim folds the change of scale into W_q.
    """

    def __init__(self, dim: int, config: BlockConfig) -> None:
        super().__init__()
        self.heads, self.qk_dim, self.v_dim = config.heads, config.qk_dim, config.v_dim
        shapes = config.linear_shapes(dim)
        self.qkv = linear(dim, shapes["qkv"][0], config.ranks.qkv)
        self.proj = linear(shapes["proj"][1], dim, config.ranks.proj)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] -> [B, N, dim]."""
        batch, tokens, _ = x.shape
        qk = self.heads * self.qk_dim
        q, k, v = self.qkv(x).split([qk, qk, self.heads * self.v_dim], dim=-1)
        q, k = (part.reshape(batch, tokens, self.heads, self.qk_dim).transpose(1, 2) for part in (q, k))
        v = v.reshape(batch, tokens, self.heads, self.v_dim).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        out: Tensor = self.proj(mixed.reshape(batch, tokens, self.heads * self.v_dim))
        return out


class Mlp(nn.Module):
    """fc2(act(fc1(x)))."""

    def __init__(self, dim: int, config: BlockConfig, act: Activation) -> None:
        super().__init__()
        self.act: Activation = act
        self.fc1 = linear(dim, config.mlp_dim, config.ranks.fc1)
        self.fc2 = linear(config.mlp_dim, dim, config.ranks.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] -> [B, N, dim]."""
        out: Tensor = self.fc2(activation(self.act, self.fc1(x)))
        return out


class LayerScale(nn.Module):
    """Per-channel gain on a residual branch (Touvron et al. 2021, "Going deeper with image transformers", eq. 1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm encoder block: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x)))."""

    def __init__(self, dim: int, config: BlockConfig, act: Activation, eps: float, layer_scale: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, config)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, config, act)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] -> [B, N, dim]."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out
