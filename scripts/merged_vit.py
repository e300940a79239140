"""Token merging (ToMe; Bolya et al. 2023, "Token Merging: Your ViT But Faster") on the canonical model, in a form that exports.

In every block, between attention and MLP, the `count` most alike pairs of patch tokens become one token each. How many is fixed, so
only the batch of the graph is dynamic; which ones is a matter of each image. The choice is made by TopK and ArgMax, and carried out by
one small matrix product. The paper tells how alike tokens are by their keys; a decomposed model has keys of few and unrelated
dimensions per head, so here it may also be told by what the block's attention is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from merging_plan import Metric
from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.model.config import BlockConfig, ViTConfig
from vitnla.model.layers import Attention, Block
from vitnla.model.vit import VisionTransformer

_ATTENTIONS = ("standard", "symmetric")


class ProportionalAttention(Attention):
    """Attention in which a token counts as often as there are patches in it: softmax(Q K^T / sqrt(d) + log size)."""

    def attend(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
        """What attention adds, and the keys.

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

    def __init__(self, model: ViTConfig, config: BlockConfig, count: int, metric: Metric) -> None:
        super().__init__(model, config)
        self.attn = ProportionalAttention(model.dim, config)
        self.prefix, self.count, self.metric = model.prefix_tokens, count, metric

    def advance(self, x: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens [B, N, dim] and their sizes [B, N, 1] (None: all 1) -> those of N - count tokens."""
        normed = self.norm1(x)
        mixed, keys = self.attn.attend(normed, sizes)
        x = x + self.ls1(mixed)
        if self.count:
            x, sizes = merge(x, sizes, keys if self.metric == "keys" else normed, self.prefix, self.count)
        return x + self.ls2(self.mlp(self.norm2(x))), sizes


class MergingTransformer(VisionTransformer):
    """The model given, on its own weights, with `counts[i]` tokens merged away in block i.

    Raises:
        InputError: the attention or the pooling is of a kind that merging does not know, or a block has too few tokens.
    """

    def __init__(self, model: VisionTransformer, counts: Sequence[int], metric: Metric = "tokens") -> None:
        config = model.config
        _check(config, counts)
        with torch.device("meta"):
            super().__init__(config)
            blocks = [MergingBlock(config, block, count, metric) for block, count in zip(config.blocks, counts, strict=True)]
            self.blocks = nn.ModuleList(blocks)
        self.load_state_dict(model.state_dict(), assign=True)
        self.counts, self.metric = tuple(counts), metric
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
        return self if plain is self else MergingTransformer(plain, self.counts, self.metric)

    def _weighted(self, encoded: Tensor, sizes: Tensor) -> Tensor:
        """Tokens scaled so that their plain mean, which pooling takes, is the mean over patches that they hold."""
        first = 0 if self.config.pooling == "mean-all" else self.config.prefix_tokens
        share = (encoded.shape[1] - first) / (self.config.tokens - first)
        return torch.cat([encoded[:, :first], encoded[:, first:] * (sizes[:, first:] * share)], dim=1)


def merge(x: Tensor, sizes: Tensor | None, metric: Tensor, prefix: int, count: int) -> tuple[Tensor, Tensor]:
    """Bipartite soft matching: every second patch names its most alike among the others, and the `count` best pairs are merged.

    A merged token is the average of its two, weighted by their sizes. The order is: prefix, those of the first set that stayed,
    the second set.

    Args:
        x: tokens [B, N, dim].
        sizes: [B, N, 1]; None where all are 1.
        metric: [B, N, any]; alike is what has a large cosine here.
        prefix: tokens at the front that take no part.
        count: pairs to merge, at most half of the patches.

    Returns:
        [B, N - count, dim] and [B, N - count, 1].
    """
    unit = metric / metric.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(metric.dtype).tiny)
    best, partner = (unit[:, prefix + 1 :: 2] @ unit[:, prefix::2].mT).max(-1)
    number = best.shape[1]
    # Sorting twice gives each its rank. A threshold would merge more than `count` where two are equal; here, the runtime chooses.
    rank = best.topk(number).indices.topk(number, largest=False).indices
    behind = prefix + number - count
    merged = rank < count
    place = torch.arange(prefix, prefix + number, device=x.device)
    goal = torch.where(merged, partner + behind, place - merged.to(place.dtype).cumsum(1))
    column = torch.arange(x.shape[1], device=x.device)
    pair = torch.div(column - prefix, 2, rounding_mode="floor")
    fixed = torch.where(column < prefix, column, pair + behind)
    moves = (column > prefix) & ((column - prefix) % 2 == 1)
    target = torch.where(moves, goal.index_select(1, pair.clamp(0, number - 1)), fixed)
    route = (target[:, None] == column[: x.shape[1] - count, None]).to(x.dtype)  # [B, N - count, N]: one 1 a column
    held = route if sizes is None else route * sizes.mT
    grown = held.sum(-1, keepdim=True)
    return (held / grown) @ x, grown


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
