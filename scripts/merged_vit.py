"""Token merging (ToMe; Bolya et al. 2023, "Token Merging: Your ViT But Faster") on the canonical model, in a form that exports.

In every block, between attention and MLP, the `count` most alike pairs of patch tokens become one token each. How many is fixed, so
only the batch of the graph is dynamic; which ones is a matter of each image, and is settled by comparisons and one-hot products
(no sorting, no indexing): with ties broken by position, every runtime makes the same choice from the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.model.config import BlockConfig, ViTConfig
from vitnla.model.layers import Attention, Block
from vitnla.model.vit import VisionTransformer

_ATTENTIONS = ("standard", "symmetric")


class ProportionalAttention(Attention):
    """Attention in which a token counts as often as there are patches in it: softmax(Q K^T / sqrt(d) + log size)."""

    def attend(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
        """What attention adds, and by what tokens are alike.

        Args:
            x: normed tokens [B, N, dim].
            sizes: patches in each token, [B, N, 1]; None where each holds one.

        Returns:
            [B, N, dim], and the keys averaged over the heads, [B, N, qk_dim].
        """
        *parts, v = self.qkv(x).split(self.widths, dim=-1)
        q, k = self._queries_keys(x, parts)
        weight = None if sizes is None else sizes.log().transpose(1, 2)[:, None]  # [B, 1, 1, N]
        mixed = F.scaled_dot_product_attention(q, k, self._by_head(v, self.v_dim), attn_mask=weight)
        joined = mixed.transpose(1, 2).reshape(*x.shape[:2], self.heads * self.v_dim)
        return self.proj(joined), k.mean(1)


class MergingBlock(Block):
    """A block that merges `count` patch tokens into others between its attention and its MLP."""

    def __init__(self, model: ViTConfig, config: BlockConfig, count: int) -> None:
        super().__init__(model, config)
        self.attn = ProportionalAttention(model.dim, config)
        self.prefix, self.count = model.prefix_tokens, count

    def advance(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, N, dim] and their sizes [B, N, 1] (None: all 1) -> those of N - count tokens."""
        mixed, metric = self.attn.attend(self.norm1(x), sizes)
        x = x + self.ls1(mixed)
        if self.count:
            x, sizes = merge(x, torch.ones_like(x[..., :1]) if sizes is None else sizes, metric, self.prefix, self.count)
        return x + self.ls2(self.mlp(self.norm2(x))), sizes


class MergingTransformer(VisionTransformer):
    """The model given, on its own weights, with `counts[i]` tokens merged away in block i.

    Raises:
        InputError: the attention or the pooling is of a kind that merging does not know, or a block has too few tokens.
    """

    def __init__(self, model: VisionTransformer, counts: Sequence[int]) -> None:
        config = model.config
        _check(config, counts)
        with torch.device("meta"):
            super().__init__(config)
            blocks = [MergingBlock(config, block, count) for block, count in zip(config.blocks, counts, strict=True)]
            self.blocks = nn.ModuleList(blocks)
        self.load_state_dict(model.state_dict(), assign=True)
        self.counts = tuple(counts)
        self.train(model.training)

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, C, H, W] -> logits [B, classes]."""
        tokens, sizes = self.embed(images), None
        for block in self.blocks:
            tokens, sizes = block.advance(tokens, sizes)
        encoded = self.finish(tokens)
        return self.classify(encoded if sizes is None else self._weighted(encoded, sizes))

    def exportable(self) -> VisionTransformer:
        """The same function under `config.exportable()`."""
        plain = super().exportable()
        return self if plain is self else MergingTransformer(plain, self.counts)

    def _weighted(self, encoded: Tensor, sizes: Tensor) -> Tensor:
        """Tokens scaled so that their plain mean, which pooling takes, is the mean over patches that they hold."""
        first = 0 if self.config.pooling == "mean-all" else self.config.prefix_tokens
        share = (encoded.shape[1] - first) / (self.config.tokens - first)
        return torch.cat([encoded[:, :first], encoded[:, first:] * (sizes[:, first:] * share)], dim=1)


def merge(x: Tensor, sizes: Tensor, metric: Tensor, prefix: int, count: int) -> tuple[Tensor, Tensor]:
    """Bipartite soft matching: every second patch names its most alike among the others, and the `count` best pairs are merged.

    A merged token is the average of its two, weighted by their sizes. The order is: prefix, those of the first set that stayed,
    the second set.

    Args:
        x: tokens [B, N, dim].
        sizes: [B, N, 1].
        metric: [B, N, any]; alike is what has a large cosine here.
        prefix: tokens at the front that take no part.
        count: pairs to merge, at most half of the patches.

    Returns:
        [B, N - count, dim] and [B, N - count, 1].
    """
    first, second = slice(prefix + 1, None, 2), slice(prefix, None, 2)
    unit = F.normalize(metric, dim=-1)
    best, partner = (unit[:, first] @ unit[:, second].mT).max(-1)
    target = _targets(best, partner, count)
    stay = best.shape[1] - count
    rows = torch.arange(stay + x.shape[1] - prefix - best.shape[1], device=x.device)
    route = (target[:, None] == rows[:, None]).to(x.dtype)  # [B, new patches, first set]: one 1 a column
    grown = _received(sizes, route, first, second, stay)
    merged = _received(x * sizes, route, first, second, stay) / grown
    return torch.cat([x[:, :prefix], merged], 1), torch.cat([sizes[:, :prefix], grown], 1)


def _targets(best: Tensor, partner: Tensor, count: int) -> Tensor:
    """Where each token of the first set goes, [B, first set]: to its own new place, or behind those, into its partner."""
    place = torch.arange(best.shape[1], device=best.device)
    ahead = (best[:, None] > best[:, :, None]) | ((best[:, None] == best[:, :, None]) & (place[None] < place[:, None]))
    merged = ahead.to(best.dtype).sum(-1) < count
    earlier = (merged.to(best.dtype) @ (place[:, None] < place[None]).to(best.dtype)).to(place.dtype)
    return torch.where(merged, partner + (best.shape[1] - count), place - earlier)


def _received(values: Tensor, route: Tensor, first: slice, second: slice, stay: int) -> Tensor:
    """Sums of [B, N, any] by new patch: what the first set brings, and what the second held."""
    return route @ values[:, first] + F.pad(values[:, second], (0, 0, stay, 0))


def _check(config: ViTConfig, counts: Sequence[int]) -> None:
    kinds = {block.attention for block in config.blocks} - set(_ATTENTIONS)
    if kinds or config.attention_pool is not None or any(block.online is not None for block in config.blocks):
        found = ", ".join(sorted(kinds)) or ("pooling by attention" if config.attention_pool else "an online decomposition")
        raise InputError(f"token merging: expected {' or '.join(_ATTENTIONS)} attention, got {found}", "choose another model")
    if len(counts) != len(config.blocks):
        raise InputError(f"expected one count for each of {len(config.blocks)} blocks, got {len(counts)}", "name fewer blocks")
    patches = config.patches
    for index, count in enumerate(counts):
        if not 0 <= count <= patches // 2:
            raise InputError(f"block {index}: expected 0 to {patches // 2} tokens to merge, got {count}", "merge fewer")
        patches -= count
