"""Weights to start from. A good start is worth many epochs where there is little data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer


def new_model(config: ViTConfig, seed: int) -> VisionTransformer:
    """A dense model with mimetic attention (Trockman & Kolter 2023, eqs. 5 and 6) and sine-cosine positions.

    W_q W_kᵀ starts near the identity, so tokens look at tokens like themselves, hence at their neighbours;
    W_v W_o starts near minus the identity, as trained models end up. Queries and keys of each head share that start.
    """
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(config)
    dim = config.dim
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(model.patch_embed.weight, std=model.patch_embed.weight[0].numel() ** -0.5, generator=generator)
    nn.init.zeros_(model.patch_embed.bias if model.patch_embed.bias is not None else torch.empty(0))
    with torch.no_grad():
        if model.prefix is not None:
            model.prefix.normal_(std=0.02, generator=generator)
        model.pos_embed[config.prefix_tokens :] = sine_cosine_positions(config.image_size // config.patch_size, dim)
        for block, shape in enumerate(config.blocks):
            qkv, proj = model.linear(block, "qkv"), model.linear(block, "proj")
            assert isinstance(qkv, nn.Linear)
            assert isinstance(proj, nn.Linear)
            q, k, v = torch.split(qkv.weight, [shape.heads * shape.qk_dim] * 2 + [shape.heads * shape.v_dim])
            for head in range(shape.heads):
                rows = slice(head * shape.qk_dim, (head + 1) * shape.qk_dim)
                left, right = _factor(_near_identity(dim, 0.7, 0.7, generator), shape.qk_dim)
                q[rows], k[rows] = left.T, right.T
            left, right = _factor(_near_identity(dim, 0.4, -0.4, generator), shape.heads * shape.v_dim)
            v.copy_(left.T)
            proj.weight.copy_(right)
    return model


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
