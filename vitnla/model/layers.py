"""The layers of the encoder. A low-rank linear is two plain linears, so every exporter and runtime knows it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitnla.model.config import Activation, AttentionPoolConfig, BlockConfig, NormKind, StoredFactor, Truncation, ViTConfig
from vitnla.model.deck import CholeskyQueries, GramScores, StoredCholesky, TruncatedOutput


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


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) (Zhang & Sennrich 2019, eq. 4), without gains: the linear that follows holds them."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def norm(kind: NormKind, dim: int, eps: float) -> nn.Module:
    """The norm of a residual stream by its name in the config."""
    return nn.LayerNorm(dim, eps=eps) if kind == "layer" else RMSNorm(eps)


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

    The scale is 1/sqrt(qk_dim); a method that narrows qk_dim folds the change of scale into W_q. Symmetric attention has one
    projection q and keys k = q * s with `key_scale` s; for the other kinds of scores see `vitnla.model.deck`.
    """

    def __init__(self, dim: int, config: BlockConfig) -> None:
        super().__init__()
        self.heads, self.qk_dim, self.v_dim = config.heads, config.qk_dim, config.v_dim
        self.kind, self.widths = config.attention, [*config.query_key_widths, config.heads * config.v_dim]
        shapes = config.linear_shapes(dim)
        self.qkv = linear(dim, shapes["qkv"][0], config.ranks.qkv)
        self.proj = linear(shapes["proj"][1], dim, config.ranks.proj)
        if self.kind == "symmetric":
            self.key_scale = nn.Parameter(torch.ones(config.heads * config.qk_dim))
        elif self.kind == "cholesky":
            self.queries = CholeskyQueries(config)
        elif self.kind == "gram":
            self.scores = GramScores(config.online if isinstance(config.online, Truncation) else None)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] -> [B, N, dim]."""
        out: Tensor = self.proj(self.mix(x))
        return out

    def mix(self, x: Tensor) -> Tensor:
        """What `proj` is given: the heads' weighted values side by side, [B, N, dim] -> [B, N, heads * v_dim]."""
        *parts, v = self.qkv(x).split(self.widths, dim=-1)
        v = self._by_head(v, self.v_dim)
        if self.kind == "gram":
            mixed = (self.scores(x) / x.shape[-1] ** 0.5).softmax(-1).to(v.dtype) @ v
        else:
            mixed = F.scaled_dot_product_attention(*self._queries_keys(x, parts), v)
        joined: Tensor = mixed.transpose(1, 2).reshape(*x.shape[:2], self.heads * self.v_dim)
        return joined

    def _queries_keys(self, x: Tensor, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Each [B, heads, N, qk_dim], from the tokens or from what `qkv` made of them."""
        if self.kind == "cholesky":
            queries = self.queries(x)
            return queries, queries
        q = parts[0]
        k = q * self.key_scale if self.kind == "symmetric" else parts[1]
        return self._by_head(q, self.qk_dim), self._by_head(k, self.qk_dim)

    def _by_head(self, part: Tensor, width: int) -> Tensor:
        """[B, N, heads * width] -> [B, heads, N, width]."""
        return part.reshape(*part.shape[:2], self.heads, width).transpose(1, 2)


class Mlp(nn.Module):
    """fc2(act(fc1(x)))."""

    def __init__(self, dim: int, config: BlockConfig, act: Activation) -> None:
        super().__init__()
        self.act: Activation = act
        self.fc1 = linear(dim, config.mlp_dim, config.ranks.fc1)
        self.fc2 = linear(config.mlp_dim, dim, config.ranks.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] -> [B, N, dim]."""
        out: Tensor = self.fc2(self.hidden(x))
        return out

    def hidden(self, x: Tensor) -> Tensor:
        """What `fc2` is given: [B, N, dim] -> [B, N, mlp_dim]."""
        return activation(self.act, self.fc1(x))


class AttentionPool(nn.Module):
    """p = proj(attention of a learned query to the tokens), then p + fc2(act(fc1(norm(p)))).

    The query is the product of the source's latent vector and its query projection, which do not depend on the image.
    """

    def __init__(self, dim: int, config: AttentionPoolConfig, act: Activation) -> None:
        super().__init__()
        self.heads, self.act = config.heads, act
        self.query = nn.Parameter(torch.zeros(config.dim))
        self.kv = nn.Linear(dim, 2 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.fc1 = nn.Linear(config.dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, stream] -> [B, dim]."""
        keys, values = (self._by_head(part) for part in self.kv(x).chunk(2, dim=-1))
        query = self._by_head(self.query.expand(x.shape[0], 1, -1))
        mixed = F.scaled_dot_product_attention(query, keys, values)
        pooled: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape[0], -1))
        out: Tensor = pooled + self.fc2(activation(self.act, self.fc1(self.norm(pooled))))
        return out

    def _by_head(self, part: Tensor) -> Tensor:
        """[B, N, dim] -> [B, heads, N, dim / heads]."""
        return part.reshape(*part.shape[:2], self.heads, -1).transpose(1, 2)


class LayerScale(nn.Module):
    """Per-channel gain on a residual branch (Touvron et al. 2021, "Going deeper with image transformers", eq. 1)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """[..., dim] -> [..., dim]."""
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm encoder block: x + ls1(attn(norm1(x))), then x + ls2(mlp(norm2(x))).

    An online row stores a factor of norm1(x) or truncates attn(...); both are identities elsewhere.
    """

    def __init__(self, model: ViTConfig, config: BlockConfig) -> None:
        super().__init__()
        dim, online = model.dim, config.online
        self.norm1 = norm(model.norm, dim, model.norm_eps)
        self.store = StoredCholesky(online.epsilon) if isinstance(online, StoredFactor) else nn.Identity()
        self.attn = Attention(dim, config)
        self.truncate = TruncatedOutput(online) if isinstance(online, Truncation) and online.kind == "svd" else nn.Identity()
        self.ls1 = LayerScale(dim) if model.layer_scale else nn.Identity()
        self.norm2 = norm(model.norm, dim, model.norm_eps)
        self.mlp = Mlp(dim, config, model.activation)
        self.ls2 = LayerScale(dim) if model.layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, dim] -> [B, N, dim]."""
        x = x + self.ls1(self.truncate(self.attn(self.store(self.norm1(x)))))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out
