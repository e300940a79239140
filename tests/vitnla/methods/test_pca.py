"""The pca method: exact where it claims to be, and honest about scores, outputs, widths and costs elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.linalg.moments import Affine
from vitnla.methods import METHODS
from vitnla.methods.parts.model_edit import Dense
from vitnla.methods.parts.narrow_attention import narrow_attention
from vitnla.methods.pca.config import PcaConfig
from vitnla.methods.registry import Decomposition
from vitnla.methods.svd.apply import SvdConfig
from vitnla.model import VisionTransformer, ViTConfig
from vitnla.model.cost import encoder_macs
from vitnla.model.layers import Attention, StandardAttention

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
HEADS, WIDTH, DIM = 2, 8, 16


@pytest.fixture
def statistics(tiny_model: VisionTransformer) -> Statistics:
    return collect(tiny_model, IMAGES, PREPROCESSING)


def pca(model: VisionTransformer, statistics: Statistics | None, **settings: object) -> Decomposition:
    return METHODS["pca"].apply(model, statistics, PcaConfig.model_validate({"width_multiple": 1, **settings}))


def logits(model: VisionTransformer) -> Tensor:
    with torch.inference_mode():
        return model(torch.from_numpy(PREPROCESSING(IMAGES)))


def tokens(model: VisionTransformer) -> Tensor:
    """What the first attention sees, float64 [images, tokens, dim]."""
    with torch.no_grad():
        images = torch.from_numpy(PREPROCESSING(IMAGES)).to(model.pos_embed)
        return model.blocks[0].norm1(model.embed(images)).double()


def attention(model: VisionTransformer, changes: dict[str, object], qk_dim: int, v_dim: int) -> Attention:
    """The first attention in float64, with some linears changed."""
    module = StandardAttention(model.config, model.config.blocks[0].changed(qk_dim=qk_dim, v_dim=v_dim)).double()
    with torch.no_grad():
        for name in ("qkv", "proj"):
            new = changes.get(name, model.linear(0, name))  # type: ignore[arg-type]
            assert isinstance(new, Affine | torch.nn.Linear)
            getattr(module, name).weight.copy_(new.weight)
            getattr(module, name).bias.copy_(new.bias)
    return module.requires_grad_(False)


def scores(model: VisionTransformer, linear: Dense | torch.nn.Linear, width: int) -> Tensor:
    """q . k / sqrt(width) of the first attention for all pairs of all tokens seen, about their mean over the keys."""
    out = tokens(model).reshape(-1, DIM) @ linear.weight.detach().double().T + linear.bias.detach().double()
    q, k = (part.unflatten(1, (HEADS, width)).transpose(0, 1) for part in out[:, : 2 * HEADS * width].chunk(2, dim=1))
    products = q @ k.mT / width**0.5
    return products - products.mean(-1, keepdim=True)


def with_heads_of_rank(model: VisionTransformer, qk: int, v: int) -> VisionTransformer:
    """Every head computes its queries from `qk` directions only and its values from `v`; biases of keys and values stay."""
    with torch.no_grad():
        for block in model.blocks:
            weight = block.attn.qkv.weight.view(3, HEADS, WIDTH, DIM)
            for part, rank in ((weight[0], qk), (weight[2], v)):
                # Multiples of other rows by powers of two, which keeps the rank exact in float32.
                part[:, rank:] = -2 * part[:, torch.arange(rank, WIDTH) % rank]
            block.attn.qkv.bias[: HEADS * WIDTH] = 0
    return model


@pytest.mark.parametrize(("qk", "v"), [(3, WIDTH), (WIDTH, 5), (3, 5)])
def test_heads_that_need_less_lose_nothing_biases_included(tiny_model: VisionTransformer, qk: int, v: int) -> None:
    """Float64: keys and values have biases, which are folded away exactly, and the scale of the scores is kept."""
    model = with_heads_of_rank(tiny_model, 3, 5).double()
    narrow = narrow_attention(model, 0, collect(model, IMAGES, PREPROCESSING)).at(qk, v)
    x = tokens(model)
    old = attention(model, {}, WIDTH, WIDTH)(x)
    new = attention(model, dict(narrow.change.linears), qk, v)(x)
    assert float((new - old).abs().max() / old.abs().max()) < 1e-10
    assert all(error < 1e-6 for error in narrow.errors.values())


def test_biases_of_keys_and_values_become_zero(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    qkv = narrow_attention(tiny_model, 0, statistics).at(4, 6).change.linears["qkv"]
    assert isinstance(qkv, Affine)
    q, k, v = qkv.bias.split([HEADS * 4, HEADS * 4, HEADS * 6])
    assert float(q.abs().min()) > 0
    assert float(k.abs().max()) == float(v.abs().max()) == 0


@pytest.mark.parametrize("qk", [1, 3, 6])
def test_reported_errors_of_scores_are_measured_ones(tiny_model: VisionTransformer, statistics: Statistics, qk: int) -> None:
    narrow = narrow_attention(tiny_model, 0, statistics)
    new = narrow.at(qk, WIDTH)
    linear = new.change.linears["qkv"]
    assert isinstance(linear, Affine)
    dense = tiny_model.linear(0, "qkv")
    assert isinstance(dense, torch.nn.Linear)
    old = scores(tiny_model, dense, WIDTH)
    error = scores(tiny_model, linear, qk) - old
    assert new.errors["qkv"] == pytest.approx(float(error.norm() / old.norm()), rel=1e-4)
    assert new.retained["qkv"] == pytest.approx(1 - new.errors["qkv"] ** 2)
    measured = WIDTH * float(error.square().mean(dim=(1, 2)).sum())
    assert float(narrow.score_errors[qk]) == pytest.approx(measured, rel=1e-4)
    assert new.errors["qkv"] > 0.01


@pytest.mark.parametrize("v", [1, 3, 6])
def test_reported_errors_of_outputs_are_measured_ones(tiny_model: VisionTransformer, statistics: Statistics, v: int) -> None:
    new = narrow_attention(tiny_model, 0, statistics).at(WIDTH, v)
    x = tokens(tiny_model)
    old = attention(tiny_model, {}, WIDTH, WIDTH)(x).reshape(-1, DIM)
    error = attention(tiny_model, dict(new.change.linears), WIDTH, v)(x).reshape(-1, DIM) - old
    assert new.errors["proj"] == pytest.approx(float(error.norm() / (old - old.mean(0)).norm()), rel=1e-4)
    assert new.errors["proj"] > 0.01
    assert float(error.mean(0).abs().max()) < 1e-6 * float(old.abs().max())
    assert "qkv" not in new.errors


def test_values_of_one_head_lose_what_the_curve_says(tiny_config: ViTConfig, statistics: Statistics) -> None:
    """Heads whose outputs are uncorrelated: all but one write nothing."""
    model = VisionTransformer(tiny_config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
        model.blocks[0].attn.proj.weight[:, WIDTH:] = 0
    narrow = narrow_attention(model, 0, collect(model, IMAGES, PREPROCESSING))
    for v in (2, 5):
        share = float(narrow.value_errors[v] / narrow.value_errors[0])
        assert narrow.at(WIDTH, v).errors["proj"] == pytest.approx(share**0.5, rel=1e-6)


def test_losses_fall_to_zero_in_the_unit_of_the_sensitivity(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    narrow = narrow_attention(tiny_model, 1, statistics)
    for losses in (narrow.qk_losses, narrow.v_losses):
        assert len(losses) == WIDTH + 1
        assert float(losses[-1]) == 0
        assert (losses.diff() <= 0).all()
    sensitivity = statistics.linears[1, "proj"].sensitivity
    assert torch.allclose(narrow.v_losses, sensitivity * narrow.value_errors)


def test_both_widths_are_reported(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    result = pca(tiny_model, statistics, qk_dim=4, v_dim=6)
    assert [(block.qk_dim, block.v_dim) for block in result.model.config.blocks] == [(4, 6)] * 2
    rows = {(row.block, row.linear): row for row in result.layers}
    assert (rows[0, "qkv"].shape, rows[0, "qkv"].dense_shape) == ((HEADS * 14, DIM), (HEADS * 24, DIM))
    assert (rows[0, "proj"].shape, rows[0, "proj"].dense_shape) == ((DIM, HEADS * 6), (DIM, HEADS * WIDTH))
    assert rows[1, "qkv"].relative_error > 0 < rows[1, "proj"].relative_error
    assert rows[1, "fc1"].relative_error == 0
    assert not rows[1, "fc1"].narrowed


def test_a_width_that_is_not_given_stays(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    values = pca(tiny_model, statistics, v_dim=4)
    assert [(block.qk_dim, block.v_dim) for block in values.model.config.blocks] == [(WIDTH, 4)] * 2
    # Queries and keys are the old ones, so that the first scores are too.
    old, new = (model.linear(0, "qkv").weight[: 2 * HEADS * WIDTH] for model in (tiny_model, values.model))  # type: ignore[index, union-attr]
    assert torch.equal(old, new)
    same = pca(tiny_model, statistics, qk_dim=WIDTH, v_dim=WIDTH)
    assert torch.equal(logits(same.model), logits(tiny_model))
    assert all(row.relative_error == 0 and not row.narrowed for row in same.layers)


@pytest.mark.parametrize("allocation", ["uniform", "knapsack"])
@pytest.mark.parametrize("target", [0.65, 0.8])
def test_the_target_is_met(tiny_model: VisionTransformer, statistics: Statistics, allocation: str, target: float) -> None:
    result = pca(tiny_model, statistics, target_macs=target, allocation=allocation)
    macs = encoder_macs(result.model.config, tiny_model.config)
    assert target - 0.04 < macs.ratio <= target
    assert sum(row.macs for row in result.layers) == macs.model
    for row in result.layers:
        linear = result.model.linear(row.block, row.linear)  # type: ignore[arg-type]
        assert row.shape == tuple(linear.weight.shape)  # type: ignore[arg-type]
        assert row.parameters == sum(parameter.numel() for parameter in linear.parameters())


def test_wider_heads_bring_the_logits_closer(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    old = logits(tiny_model)
    errors = [float((logits(pca(tiny_model, statistics, qk_dim=w, v_dim=w).model) - old).norm()) for w in (1, 3, 5, 7, WIDTH)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-2] > errors[-1] == 0


@pytest.mark.parametrize("count", [1, 2])
def test_few_calibration_images_make_singular_moments_and_a_finite_model(tiny_model: VisionTransformer, count: int) -> None:
    result = pca(tiny_model, collect(tiny_model, IMAGES[:count], PREPROCESSING), qk_dim=5, v_dim=5)
    assert torch.isfinite(logits(result.model)).all()
    seen = torch.from_numpy(PREPROCESSING(IMAGES[:count]))
    with torch.no_grad():
        x = tiny_model.blocks[0].norm1(tiny_model.embed(seen))
        old, new = tiny_model.blocks[0].attn(x), result.model.blocks[0].attn(x)
    if count == 1:  # five tokens have four directions about their mean
        assert torch.allclose(old, new, atol=1e-4)


def test_config_defaults_and_round_trip() -> None:
    assert PcaConfig().target_macs == 0.85
    assert PcaConfig(v_dim=48).target_macs is None
    for config in (PcaConfig(), PcaConfig(qk_dim=32, v_dim=48), PcaConfig(target_macs=0.8, allocation="uniform")):
        assert PcaConfig.model_validate_json(config.to_json()) == config


def test_what_makes_no_sense_is_refused(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    with pytest.raises(InputError, match="expected target_macs or widths of heads, got both"):
        PcaConfig(qk_dim=4, target_macs=0.8)
    with pytest.raises(InputError, match="target_macs: expected a share above 0 and at most 1, got 0"):
        PcaConfig(target_macs=0.0)
    with pytest.raises(InputError, match="pca: expected calibration statistics, got none"):
        pca(tiny_model, None)
    with pytest.raises(InputError, match="v_dim: expected at most 8, the width of a head, got 9"):
        pca(tiny_model, statistics, v_dim=9)
    with pytest.raises(InputError, match=r"expected a ratio from 0\.563 to 1, got 0\.4"):
        pca(tiny_model, statistics, target_macs=0.4)
    low_rank = METHODS["svd"].apply(tiny_model, statistics, SvdConfig(rank=4)).model
    with pytest.raises(InputError, match="block 0 qkv: expected a dense linear, got a low-rank one"):
        pca(low_rank, statistics)
