"""Closed-form recovery: the last linear of every residual branch is refitted, so that errors do not accumulate.

A method decomposes each layer on the inputs that the dense model gives it. In the compressed model those inputs have
drifted. Going through the blocks in order, the branch's last linear is fitted by least squares to bring the compressed
stream back to the dense one, on calibration images and without labels or gradients. The idea is that of the sequential
reconstruction in channel pruning (He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", eq. 5) with
the asymmetric target of GPTAQ (Li et al. 2025): the dense model's output, not that of the drifted input.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.linalg.regression import ridge
from vitnla.model.layers import Block, LayerScale, LowRankLinear
from vitnla.model.vit import VisionTransformer

DAMPING = 1e-2
"""Ridge towards the current weights, relative to the mean variance of the features."""


@torch.no_grad()
def refit(
    model: VisionTransformer, dense: VisionTransformer, tokens: Tensor, *, damping: float = DAMPING, batch_size: int = 32,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> VisionTransformer:  # fmt: skip
    """Return a copy of `model` whose `proj` and `fc2` (U where low-rank) are fitted to the residual stream of `dense`.

    Args:
        model: the decomposed model: any widths and ranks inside its blocks, the same residual stream as `dense`.
        dense: the model it was made from.
        tokens: [N, tokens, dim] embedded calibration images, kept in memory twice, with the features of one branch beside them.
        damping: see `DAMPING`; the larger, the less is changed.
        batch_size: images at a time.
        on_progress: called with the blocks done and their total.

    Raises:
        InputError: the models differ in depth or in the width of the residual stream.
    """
    if (model.config.dim, len(model.config.blocks)) != (dense.config.dim, len(dense.config.blocks)):
        hint = "refit only a model with the dense one's depth and dim"
        raise InputError(
            f"expected the residual stream of the dense model ({dense.config.dim} wide, {len(dense.config.blocks)} blocks), got "
            f"{model.config.dim} wide, {len(model.config.blocks)} blocks", hint,
        )  # fmt: skip
    fitted = copy.deepcopy(model)
    ours, theirs = tokens.clone(), tokens.clone()
    for index in range(len(fitted.blocks)):
        block, original = cast(Block, fitted.blocks[index]), cast(Block, dense.blocks[index])
        _fit_branch(_Branch.attention(block), _Branch.attention(original), ours, theirs, damping, batch_size)
        _fit_branch(_Branch.mlp(block), _Branch.mlp(original), ours, theirs, damping, batch_size)
        on_progress(index + 1, len(fitted.blocks))
    return fitted


class _Branch:
    """A residual branch as features and one last linear map of them: x + scale * (W features(x) + b)."""

    def __init__(self, norm: nn.Module, body: Callable[[Tensor], Tensor], last: nn.Module, scale: nn.Module) -> None:
        self._norm, self._body = norm, body
        # Of a low-rank linear, V belongs to the features: what is fitted is U.
        self._inner = last.V if isinstance(last, LowRankLinear) else nn.Identity()
        self.linear = cast(nn.Linear, last.U if isinstance(last, LowRankLinear) else last)
        self.gain = scale.gamma.detach() if isinstance(scale, LayerScale) else None

    @classmethod
    def attention(cls, block: Block) -> _Branch:
        """x + ls1(proj(mix(norm1(x))))."""
        return cls(block.norm1, block.attn.mix, block.attn.proj, block.ls1)

    @classmethod
    def mlp(cls, block: Block) -> _Branch:
        """x + ls2(fc2(hidden(norm2(x))))."""
        return cls(block.norm2, block.mlp.hidden, block.mlp.fc2, block.ls2)

    def features(self, x: Tensor) -> Tensor:
        """Return the input of the fitted linear, given the stream before the branch."""
        out: Tensor = self._inner(self._body(self._norm(x)))
        return out

    def add(self, x: Tensor, features: Tensor) -> Tensor:
        """Return the stream after the branch."""
        out = cast(Tensor, self.linear(features))
        return x + (out if self.gain is None else out * self.gain)


def _fit_branch(ours: _Branch, dense: _Branch, stream: Tensor, target: Tensor, damping: float, size: int) -> None:
    """Step the target stream through the dense branch, fit our linear to it, and step our stream; both in place."""
    width = ours.linear.in_features
    # The constant 1 beside the features stands for the bias.
    moment = torch.zeros(width + 1, width + 1, dtype=torch.float64)
    cross = torch.zeros(ours.linear.out_features, width + 1, dtype=torch.float64)
    gain = ours.gain if ours.gain is not None else torch.ones(ours.linear.out_features)
    seen = []
    for part in _parts(stream, size):
        target[part] = dense.add(target[part], dense.features(target[part]))
        features = ours.features(stream[part])
        seen.append(features)
        # What the branch as it is leaves to be done, before LayerScale: a channel that this turns off cannot be fitted.
        left = (target[part] - ours.add(stream[part], features)) / torch.where(gain == 0, torch.inf, gain)
        extended = nn.functional.pad(features.flatten(0, 1), (0, 1), value=1.0)
        # Products in float32, twice as fast, and sums over parts in float64: what rounding adds is far below the damping.
        moment += (extended.T @ extended).double()
        cross += (left.flatten(0, 1).T @ extended).double()
    change = ridge(moment, cross, damping)
    ours.linear.weight.add_(change[:, :-1])
    ours.linear.bias.add_(change[:, -1])
    for part, features in zip(_parts(stream, size), seen, strict=True):
        stream[part] = ours.add(stream[part], features)


def _parts(tokens: Tensor, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, len(tokens), size))
