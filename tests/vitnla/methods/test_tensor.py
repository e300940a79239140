"""The tensor method: exact at full width, honest about what each mode loses, and never reconstructed when the model runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from export.graph.files import save_model
from export.graph.inspect import low_rank_pairs, require_standard_operators
from export.graph.parity import OnnxModel, torch_logits
from export.graph.simplify import simplify
from export.graph.trace import trace
from runtime.check.logits import relative_error
from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.linalg.moments import Affine, LowRankAffine
from vitnla.linalg.torch.tucker import head_factor
from vitnla.methods import METHODS
from vitnla.methods.parts.model_edit import BlockChange, Dense, LowRank
from vitnla.methods.pca.config import PcaConfig
from vitnla.methods.registry import Decomposition
from vitnla.methods.svd.apply import SvdConfig
from vitnla.methods.tensor.config import TensorConfig
from vitnla.methods.tensor.stacked_heads import AttentionTensor
from vitnla.model import LowRankLinear, Ranks, VisionTransformer, ViTConfig
from vitnla.model.cost import encoder_macs
from vitnla.model.layers import Attention, Block, StandardAttention

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
HEADS, WIDTH, DIM = 2, 8, 16


@pytest.fixture
def statistics(tiny_model: VisionTransformer) -> Statistics:
    return collect(tiny_model, IMAGES, PREPROCESSING)


def tensor(model: VisionTransformer, statistics: Statistics | None, **settings: object) -> Decomposition:
    return METHODS["tensor"].apply(model, statistics, TensorConfig.model_validate({"width_multiple": 1, **settings}))


def logits(model: VisionTransformer) -> Tensor:
    with torch.inference_mode():
        out: Tensor = model(torch.from_numpy(PREPROCESSING(IMAGES)))
    return out


def tokens(model: VisionTransformer) -> Tensor:
    """What the first attention sees, float64 [images, tokens, dim]."""
    with torch.no_grad():
        out: Tensor = cast(Block, model.blocks[0]).norm1(model.embed(torch.from_numpy(PREPROCESSING(IMAGES)).to(model.pos_embed)))
    return out.double()


def attention(change: BlockChange) -> Attention:
    """A first attention in float64 with both linears changed."""
    qkv, proj = change.linears["qkv"], change.linears["proj"]
    rank = qkv.factors.rank if isinstance(qkv, LowRankAffine) else None
    width = change.qk_dim or WIDTH
    shape = ViTConfig.uniform(image_size=8, patch_size=4, channels=1, classes=10, dim=DIM, depth=1, heads=HEADS)
    module = StandardAttention(shape, shape.blocks[0].changed(qk_dim=width, v_dim=width, ranks=Ranks(qkv=rank))).double()
    assert isinstance(proj, Affine)
    tensors = {"proj.weight": proj.weight, "proj.bias": proj.bias}
    if isinstance(qkv, LowRankAffine):
        tensors |= {"qkv.U.weight": qkv.factors.U, "qkv.V.weight": qkv.factors.V, "qkv.U.bias": qkv.bias}
    else:
        tensors |= {"qkv.weight": qkv.weight, "qkv.bias": qkv.bias}
    module.load_state_dict(tensors)
    return module.requires_grad_(False)


def dense_output(model: VisionTransformer) -> Tensor:
    with torch.no_grad():
        out: Tensor = cast(Block, model.blocks[0]).attn.double()(tokens(model))
    return out


def test_full_modes_are_exact(tiny_model: VisionTransformer) -> None:
    model = tiny_model.double()
    block = AttentionTensor.of(model, 0, collect(model, IMAGES, PREPROCESSING))
    error = attention(block.at(WIDTH, DIM).change)(tokens(model)) - dense_output(model)
    assert float(error.abs().max()) < 1e-10


def test_heads_that_are_narrow_already_are_cut_without_loss(tiny_model: VisionTransformer) -> None:
    """Every head's scores and values lie in 3 dimensions, in coordinates of its own."""
    model = tiny_model.double()
    generator = torch.Generator().manual_seed(0)
    qkv = cast(nn.Linear, model.linear(0, "qkv"))
    with torch.no_grad():
        for rows in torch.split(qkv.weight, WIDTH):
            basis = torch.linalg.qr(torch.randn(WIDTH, 3, dtype=torch.float64, generator=generator)).Q
            rows.copy_(basis @ (basis.T @ rows))
        qkv.bias.zero_()
    block = AttentionTensor.of(model, 0, collect(model, IMAGES, PREPROCESSING))
    narrowed = block.at(3, None)
    assert float((attention(narrowed.change)(tokens(model)) - dense_output(model)).abs().max()) < 1e-10
    assert narrowed.errors["qkv"] < 1e-6
    assert float((attention(block.at(2, None).change)(tokens(model)) - dense_output(model)).abs().max()) > 1e-3


def test_inputs_that_lie_in_few_dimensions_cost_nothing_in_the_width_mode(tiny_model: VisionTransformer) -> None:
    """Five tokens of one image: a singular covariance, of rank 4 about their mean."""
    model = tiny_model.double()
    block = AttentionTensor.of(model, 0, collect(model, IMAGES[:1], PREPROCESSING))
    for rank in (4, 9):
        error = attention(block.at(WIDTH, rank).change)(tokens(model)[:1]) - dense_output(model)[:1]
        assert float(error.abs().max()) < 1e-8
    assert float((attention(block.at(WIDTH, 3).change)(tokens(model)[:1]) - dense_output(model)[:1]).abs().max()) > 1e-4


def test_the_head_mode_loses_the_scores_and_outputs_that_it_says(tiny_model: VisionTransformer) -> None:
    """Against all pairs of all tokens seen; heads' outputs are measured one by one, as attention mixes them."""
    model = tiny_model.double()
    block = AttentionTensor.of(model, 0, collect(model, IMAGES, PREPROCESSING))
    x = tokens(model)
    sensitivities = (block.attention.score_sensitivity, block.attention.mixed.sensitivity)
    for width in (2, 5):
        change = block.at(width, None).change
        module = attention(change)
        old, new = cast(Block, model.blocks[0]).attn.requires_grad_(False), module

        def scores(layer: nn.Module, width: int) -> Tensor:
            flat = cast(Tensor, layer.qkv(x.reshape(-1, DIM)))  # type: ignore[operator]
            q, k = (part.reshape(-1, HEADS, width).transpose(0, 1) for part in flat[:, : 2 * HEADS * width].chunk(2, dim=1))
            products = q @ k.mT / width**0.5
            about_mean: Tensor = (products - products.mean(-1, keepdim=True)) * WIDTH**0.5
            return about_mean

        score_error = float((scores(new, width) - scores(old, WIDTH)).square().mean((1, 2)).sum())
        mixed = old.mix(x).reshape(-1, HEADS * WIDTH)
        lost = 0.0
        for head in range(HEADS):
            outputs = (
                mixed[:, head * WIDTH : (head + 1) * WIDTH]
                @ cast(nn.Linear, old.proj).weight[:, head * WIDTH : (head + 1) * WIDTH].T
            )
            basis = torch.linalg.qr(cast(Dense, change.linears["proj"]).weight[:, head * width : (head + 1) * width]).Q
            spread = outputs - outputs.mean(0)
            lost += float((spread - spread @ basis @ basis.T).square().sum(1).mean())
        expected = sensitivities[0] * score_error + sensitivities[1] * lost
        found = next(one.loss for one in block.candidates(1) if one.sizes == {"head_dim": width})
        assert found == pytest.approx(expected, rel=1e-6)


def test_the_width_mode_is_the_best_of_its_rank_for_the_weighted_errors(tiny_model: VisionTransformer) -> None:
    """Rows weighted by what their errors cost: the loss is the tail of a truncated SVD, and no other pair of factors beats it."""
    model = tiny_model.double()
    block = AttentionTensor.of(model, 0, collect(model, IMAGES, PREPROCESSING))
    x = tokens(model).reshape(-1, DIM)
    x = x - x.mean(0)
    rank = 3
    exact, cut = (block.at(WIDTH, size).change.linears["qkv"] for size in (DIM, rank))
    assert isinstance(exact, LowRankAffine)
    assert isinstance(cut, LowRankAffine)
    scale = block.weights.flatten()[:, None]
    axes = head_factor(block.tensor, WIDTH)

    def weighted(new: LowRank) -> Tensor:
        by_head = (new.factors.product @ x.T).reshape(3 * HEADS, WIDTH, -1)
        rows: Tensor = scale * (axes @ by_head).flatten(0, 1) / len(x) ** 0.5
        return rows

    target = weighted(exact)
    values = torch.linalg.svdvals(target)
    loss = float((weighted(cut) - target).square().sum())
    assert loss == pytest.approx(float(values[rank:].square().sum()), rel=1e-8)
    found = {tuple(one.sizes.items()): one.loss for one in block.candidates(1)}
    assert found[("head_dim", WIDTH), ("rank", rank)] == pytest.approx(loss, rel=1e-8)


def test_larger_modes_lose_less(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    losses = {tuple(one.sizes.values()): one.loss for one in AttentionTensor.of(tiny_model, 0, statistics).candidates(1)}
    widths = [losses[width,] for width in range(1, WIDTH + 1)]
    assert all(more > fewer for more, fewer in pairwise(widths))
    assert widths[-1] == 0
    ranks = [loss for sizes, loss in sorted(losses.items()) if len(sizes) == 2 and sizes[0] == WIDTH]
    assert len(ranks) == 11
    assert all(more > fewer for more, fewer in pairwise(ranks))
    dense = logits(tiny_model)
    errors = [float((logits(tensor(tiny_model, statistics, rank=rank).model) - dense).norm()) for rank in (2, 5, 8, 11)]
    assert errors[0] > errors[1] > errors[2] > errors[3] > 0


def test_without_a_rank_it_is_head_narrowing(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    """One F for all heads, in each head's own sorted coordinates, keeps nearly what `pca` keeps head by head, and no more."""
    found = tensor(tiny_model, statistics, head_dim=4)
    reference = METHODS["pca"].apply(tiny_model, statistics, PcaConfig(qk_dim=4, v_dim=4))
    assert found.model.config == reference.model.config
    for ours, theirs in zip(found.layers, reference.layers, strict=True):
        assert ours.macs == theirs.macs
        if ours.linear == "proj":
            # Head by head nothing keeps more; errors of several heads may cancel, either way, by the signs of the coordinates.
            assert ours.retained_energy <= theirs.retained_energy * (1 + 1e-6)
            assert 0.95 * theirs.relative_error < ours.relative_error < 1.5 * theirs.relative_error


def test_one_projection_is_shared_by_all_heads(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    model = tensor(tiny_model, statistics, head_dim=4, rank=5).model
    for index, block in enumerate(model.config.blocks):
        assert (block.qk_dim, block.v_dim, block.ranks) == (4, 4, Ranks(qkv=5))
        qkv = model.linear(index, "qkv")
        assert isinstance(qkv, LowRankLinear)
        assert (tuple(qkv.V.weight.shape), tuple(qkv.U.weight.shape)) == ((5, DIM), (3 * HEADS * 4, 5))
    for key in model.linear_names():
        if key[1] in ("fc1", "fc2"):
            assert torch.equal(cast(nn.Linear, model.linear(*key)).weight, cast(nn.Linear, tiny_model.linear(*key)).weight)


def test_the_key_bias_cancels(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    before = tensor(tiny_model, statistics, head_dim=5, rank=6).model
    with torch.no_grad():
        cast(nn.Linear, tiny_model.linear(0, "qkv")).bias[HEADS * WIDTH : 2 * HEADS * WIDTH] += 3.0
    after = tensor(tiny_model, collect(tiny_model, IMAGES, PREPROCESSING), head_dim=5, rank=6).model
    assert torch.allclose(logits(before), logits(after), atol=1e-4)


@pytest.mark.parametrize("target", [0.75, 0.85, 1.0])
def test_the_target_is_met(tiny_model: VisionTransformer, statistics: Statistics, target: float) -> None:
    result = tensor(tiny_model, statistics, target_macs=target)
    macs = encoder_macs(result.model.config, tiny_model.config)
    assert target - 0.02 < macs.ratio <= target
    assert sum(row.macs for row in result.layers) == macs.model
    for row in result.layers:
        linear = result.model.linear(row.block, row.linear)  # type: ignore[arg-type]
        assert row.parameters == sum(parameter.numel() for parameter in linear.parameters())
        if row.linear in ("fc1", "fc2"):
            assert (row.rank, row.relative_error, row.retained_energy) == (None, 0.0, 1.0)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_extreme_scales_of_the_inputs(tiny_model: VisionTransformer, scale: float) -> None:
    """Tokens scaled up and weights scaled down compute the same, so the cut must too."""
    model = tiny_model.double()
    results = []
    for factor in (1.0, scale):
        with torch.no_grad():
            for index in range(2):
                norm, qkv = cast(Block, model.blocks[index]).norm1, cast(nn.Linear, model.linear(index, "qkv"))
                cast(nn.LayerNorm, norm).weight.mul_(factor)
                cast(nn.LayerNorm, norm).bias.mul_(factor)
                qkv.weight.div_(factor)
        block = AttentionTensor.of(model, 0, collect(model, IMAGES, PREPROCESSING))
        results.append(attention(block.at(4, 5).change)(tokens(model)))
    assert torch.allclose(results[0], results[1], rtol=1e-6, atol=1e-8)


@given(st.integers(1, 4), st.integers(2, 6), st.integers(1, 6), st.sampled_from([1e-8, 1.0, 1e8]), st.data())
def test_the_head_factor_is_the_best(count: int, height: int, inner: int, scale: float, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    width = data.draw(st.integers(1, min(height, count * inner)))
    many = scale * torch.randn(count, height, inner, dtype=torch.float64, generator=generator)
    factor = head_factor(many, width)
    assert torch.allclose(factor.T @ factor, torch.eye(width, dtype=torch.float64), atol=1e-10)
    unfolded = many.transpose(0, 1).flatten(1)
    kept = float((factor.T @ unfolded).square().sum())
    assert kept == pytest.approx(float(torch.linalg.svdvals(unfolded)[:width].square().sum()), rel=1e-9)
    other = torch.linalg.qr(torch.randn(height, width, dtype=torch.float64, generator=generator)).Q
    assert float((other.T @ unfolded).square().sum()) <= kept * (1 + 1e-9)


def test_the_head_factor_of_nothing() -> None:
    assert torch.equal(head_factor(torch.zeros(2, 4, 3), 2), torch.eye(4, 2, dtype=torch.float64))


def test_an_attention_that_does_nothing_survives(tiny_model: VisionTransformer) -> None:
    with torch.no_grad():
        cast(nn.Linear, tiny_model.linear(0, "proj")).weight.zero_()
        cast(nn.Linear, tiny_model.linear(1, "qkv")).weight.zero_()
    result = tensor(tiny_model, collect(tiny_model, IMAGES, PREPROCESSING), head_dim=3, rank=4)
    assert torch.isfinite(logits(result.model)).all()
    assert torch.allclose(logits(result.model), logits(tiny_model), atol=1e-4)


@pytest.mark.parametrize("sizes", [{"head_dim": 4}, {"head_dim": 4, "rank": 5}, {"rank": 6}], ids=str)
def test_the_exported_graph_is_standard_and_equals_torch(
    tiny_model: VisionTransformer, statistics: Statistics, sizes: dict[str, int], tmp_path: Path
) -> None:
    model = tensor(tiny_model, statistics, **sizes).model
    images = PREPROCESSING(IMAGES)
    for graph in (traced := trace(model), simplify(traced, model.config).model):
        require_standard_operators(graph)
        assert [pair.rank for pair in low_rank_pairs(graph)] == ([sizes["rank"]] * 2 if "rank" in sizes else [])
        save_model(graph, tmp_path / "model.onnx")
        assert relative_error(OnnxModel(tmp_path / "model.onnx")(images), torch_logits(model, images)) < 1e-5


def test_what_cannot_be_decomposed_is_refused_in_one_line(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    with pytest.raises(InputError, match="expected calibration statistics"):
        tensor(tiny_model, None, rank=4)
    low_rank = METHODS["svd"].apply(tiny_model, statistics, SvdConfig(rank=4)).model
    with pytest.raises(InputError, match="block 0 qkv: expected a dense linear"):
        tensor(low_rank, statistics, rank=4)
    narrow = METHODS["pca"].apply(tiny_model, statistics, PcaConfig(qk_dim=4)).model
    with pytest.raises(InputError, match="block 0: expected heads with values as wide as keys, got 4 and 8"):
        tensor(narrow, statistics, rank=4)
    with pytest.raises(InputError, match="head_dim: expected at most 8, the width of a head, got 9"):
        tensor(tiny_model, statistics, head_dim=9)
    with pytest.raises(InputError, match="rank: expected at most 11 for heads of width 2, got 12"):
        tensor(tiny_model, statistics, head_dim=2, rank=12)
    with pytest.raises(InputError, match=r"expected a ratio from 0\.\d+ to 1, got 0\.3"):
        tensor(tiny_model, statistics, target_macs=0.3)


def test_a_rank_that_saves_nothing_stays_dense(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    assert tensor(tiny_model, statistics, rank=12).model.config == tiny_model.config


def test_settings() -> None:
    assert TensorConfig().target_macs == 0.85
    assert TensorConfig(rank=8).target_macs is None
    for config in (TensorConfig(), TensorConfig(head_dim=4, rank=8)):
        assert TensorConfig.model_validate_json(config.to_json()) == config
    with pytest.raises(InputError, match="expected target_macs or sizes, got both"):
        TensorConfig(rank=8, target_macs=0.5)
    with pytest.raises(InputError, match="target_macs: expected a share above 0 and at most 1"):
        TensorConfig(target_macs=0.0)
