"""Initial weights. With little data, a good initialisation saves many epochs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vitnla.model.config import ViTConfig
from vitnla.model.layers import Attention, Block, LowRankLinear, assign_weight, balanced_factors
from vitnla.model.vit import VisionTransformer


def new_model(config: ViTConfig, seed: int) -> VisionTransformer:
    """Return a model with mimetic attention (Trockman & Kolter 2023, eqs. 5 and 6) and sine-cosine positions.

    W_q W_kᵀ starts near the identity, so tokens attend to similar tokens, hence to their neighbours;
    W_v W_o starts near minus the identity, as in trained models. Queries and keys of each head share this initialisation.
    A low-rank linear starts as the best approximation of the dense initialisation.
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
        if model.pos_embed is not None:
            model.pos_embed[config.prefix_tokens :] = sine_cosine_positions(config.image_size // config.patch_size, config.dim)
        for block in model.blocks:
            assert isinstance(block, Block)
            _start_attention(block.attn, generator)
            for linear in block.mlp.children():
                if isinstance(linear, LowRankLinear):
                    dense = torch.empty(linear.U.out_features, linear.V.in_features)
                    assign_weight(linear, nn.init.trunc_normal_(dense, std=0.02, generator=generator))
    return model


def _start_attention(attention: Attention, generator: torch.Generator) -> None:
    """Initialise scores near the identity, in the attention's own form, and values near its negative."""
    scores = attention.start_scores(lambda size: _near_identity(size, 0.7, 0.7, generator))
    outputs = _near_identity(attention.dim, 0.4, -0.4, generator)
    left, right = balanced_factors(outputs, attention.heads * attention.v_dim)
    assign_weight(attention.qkv, torch.cat([*scores, left.T]))
    assign_weight(attention.proj, right)


def sine_cosine_positions(side: int, dim: int) -> Tensor:
    """Return the 2-D sine-cosine table [side², dim] (He et al. 2022, MAE): a quarter each of sin/cos of row and column."""
    frequencies = 10_000 ** -(torch.arange(dim // 4) / (dim / 4))
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (row, column)]
    table = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    padded: Tensor = nn.functional.pad(table, (0, dim - table.shape[1]))
    return padded


def _near_identity(dim: int, noise: float, identity: float, generator: torch.Generator) -> Tensor:
    matrix: Tensor = noise * torch.randn(dim, dim, generator=generator) * dim**-0.5 + identity * torch.eye(dim)
    return matrix
