"""Closed-form recovery: what it must leave alone, what it must win back, and that its algebra is least squares."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.linalg.low_rank import truncated_svd
from vitnla.methods.parts.model_edit import LowRank, dense_linear, with_low_rank
from vitnla.methods.parts.refit import refit
from vitnla.model.vit import VisionTransformer


def tokens_for(model: VisionTransformer, count: int = 12) -> Tensor:
    return torch.randn(count, model.config.tokens, model.config.dim, generator=torch.Generator().manual_seed(5))


def cut(model: VisionTransformer, rank: int) -> VisionTransformer:
    """Every linear by plain SVD at a rank."""
    linears = {key: dense_linear(model, key) for key in model.linear_names()}
    return with_low_rank(
        model, {key: LowRank(truncated_svd(linear.weight, rank), linear.bias) for key, linear in linears.items()}
    )


def stream_error(model: VisionTransformer, dense: VisionTransformer, tokens: Tensor) -> float:
    with torch.no_grad():
        return float((model.encode(tokens) - dense.encode(tokens)).square().mean())


def test_the_dense_model_is_left_as_it_is(tiny_model: VisionTransformer) -> None:
    fitted = refit(tiny_model, tiny_model, tokens_for(tiny_model))
    for (name, before), after in zip(tiny_model.state_dict().items(), fitted.state_dict().values(), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6, msg=name)


def test_it_brings_the_stream_back_and_touches_neither_model(tiny_model: VisionTransformer) -> None:
    small, tokens = cut(tiny_model, 3), tokens_for(tiny_model, 40)
    before = [tensor.clone() for model in (small, tiny_model) for tensor in model.state_dict().values()]
    fitted = refit(small, tiny_model, tokens[:30], damping=1e-6)
    assert stream_error(fitted, tiny_model, tokens[:30]) < 0.8 * stream_error(small, tiny_model, tokens[:30])
    after = [tensor for model in (small, tiny_model) for tensor in model.state_dict().values()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert fitted.config == small.config


def test_heavy_damping_changes_nothing(tiny_model: VisionTransformer) -> None:
    small, tokens = cut(tiny_model, 4), tokens_for(tiny_model)
    fitted = refit(small, tiny_model, tokens, damping=1e9)
    weights = zip(small.state_dict().items(), fitted.state_dict().items(), strict=True)
    for (name, before), (_, after) in weights:
        if not name.endswith("bias"):  # the bias is not damped: the mean is always made right
            torch.testing.assert_close(after, before, rtol=0, atol=1e-6, msg=name)


def test_another_stream_is_refused(tiny_model: VisionTransformer) -> None:
    other = VisionTransformer(tiny_model.config.model_copy(update={"blocks": tiny_model.config.blocks[:1]}))
    with pytest.raises(InputError, match="expected the residual stream of the dense model"):
        refit(other, tiny_model, tokens_for(tiny_model))
