"""Weights to start from. A good start is worth many epochs where there is little data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitnla.linalg.symmetric import nearest_psd_factor
from vitnla.model.config import BlockConfig, ViTConfig
from vitnla.model.deck import pack_triangles
from vitnla.model.layers import Attention, Block, LowRankLinear
from vitnla.model.vit import VisionTransformer


def new_model(config: ViTConfig, seed: int) -> VisionTransformer:
    """A model with mimetic attention (Trockman & Kolter 2023, eqs. 5 and 6) and sine-cosine positions.

    W_q W_kᵀ starts near the identity, so tokens look at tokens like themselves, hence at their neighbours;
    W_v W_o starts near minus the identity, as trained models end up. Queries and keys of each head share that start.
    A low-rank linear starts as the best approximation of what the dense one would start as.
    """
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(config)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
            nn.init.zeros_(module.bias if module.bias is not None else torch.empty(0))
    nn.init.trunc_normal_(model.patch_embed.weight, std=model.patch_embed.weight[0].numel() ** -0.5, generator=generator)
    nn.init.zeros_(model.patch_embed.bias if model.patch_embed.bias is not None else torch.empty(0))
    with torch.no_grad():
        if model.prefix is not None:
            model.prefix.normal_(std=0.02, generator=generator)
        if model.pool is not None:
            model.pool.query.normal_(std=model.pool.query.numel() ** -0.5, generator=generator)
        model.pos_embed[config.prefix_tokens :] = sine_cosine_positions(config.image_size // config.patch_size, config.dim)
        for index, block in enumerate(model.blocks):
            assert isinstance(block, Block)
            _start_attention(block.attn, config.blocks[index], config.dim, generator)
            for linear in (block.mlp.fc1, block.mlp.fc2):
                if isinstance(linear, LowRankLinear):
                    dense = torch.empty(linear.U.out_features, linear.V.in_features)
                    _assign(linear, nn.init.trunc_normal_(dense, std=0.02, generator=generator))
    return model


def _start_attention(attention: Attention, config: BlockConfig, dim: int, generator: torch.Generator) -> None:
    """Scores near the identity, in the form that the attention has for them, and values near its negative."""
    queries, keys = [], []
    for _ in range(config.heads if config.query_key_widths else 0):
        left, right = _factor(_near_identity(dim, 0.7, 0.7, generator), config.qk_dim)
        queries.append(left.T)
        keys.append(right.T)
    if config.attention == "cholesky":
        scores = [_near_identity(config.qk_dim, 0.7, 0.7, generator) for _ in range(config.heads)]
        attention.queries.packed.copy_(pack_triangles(torch.stack([nearest_psd_factor(matrix) for matrix in scores])))
    left, right = _factor(_near_identity(dim, 0.4, -0.4, generator), config.heads * config.v_dim)
    shared = [] if config.attention == "symmetric" else keys
    _assign(attention.qkv, torch.cat([*queries, *shared, left.T]))
    _assign(attention.proj, right)


def _assign(linear: nn.Module, weight: Tensor) -> None:
    """Give a linear this weight [out, in], or the nearest one of its rank."""
    if isinstance(linear, LowRankLinear):
        left, right = _factor(weight, linear.V.out_features)
        linear.U.weight.copy_(left)
        linear.V.weight.copy_(right.T)
    else:
        assert isinstance(linear, nn.Linear)
        linear.weight.copy_(weight)


def sine_cosine_positions(side: int, dim: int) -> Tensor:
    """Two-dimensional sine-cosine table [side², dim] (He et al. 2022, MAE): a quarter each of sin/cos of row and column."""
    frequencies = 10_000 ** -(torch.arange(dim // 4) / (dim / 4))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (row, column)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    padded: Tensor = nn.functional.pad(table, (0, dim - table.shape[1]))
    return padded


def _near_identity(dim: int, noise: float, identity: float, generator: torch.Generator) -> Tensor:
    matrix: Tensor = noise * torch.randn(dim, dim, generator=generator) * dim**-0.5 + identity * torch.eye(dim)
    return matrix


def _factor(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Balanced factors (A, B), each [dim, rank], with A Bᵀ the best approximation of `matrix`."""
    u, s, vh = torch.linalg.svd(matrix)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, vh[:rank].T * root
