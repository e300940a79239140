"""The deck's rows as methods: what they keep of a model, what they report, and how they are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.methods import METHODS, Decomposition
from vitnla.methods.registry import make_config
from vitnla.model import VisionTransformer, load_checkpoint
from vitnla.model.config import StoredFactor
from vitnla.model.cost import encoder_macs, encoder_parameters
from vitnla.training.config import PRESETS, Preset, TrainConfig
from vitnla.training.loop import Progress
from vitnla.training.run import train_on

EXACT = ("cholesky-online", "svd-full", "svd-online")
TRAINABLE = ("cholesky-online", "cholesky-symmetric", "pca-online", "svd-full", "svd-online", "symmetric", "tensor-online")
PRESET = Preset(
    patch_size=4, dim=16, depth=1, heads=2, activation="relu", pooling="cls",
    train=TrainConfig(epochs=6, batch_size=32, lr=1e-2, token_keep=1, ema_decay=0.5, shift=0, flip=False),
)  # fmt: skip


def apply(name: str, model: VisionTransformer, **settings: Any) -> Decomposition:
    method = METHODS[name]
    result: Decomposition = method.apply(model, None, make_config(method, settings))
    return result


def images(batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def halves() -> Dataset:
    """Two classes: bright above, or bright below."""
    rng = np.random.default_rng(0)

    def make(count: int) -> Split:
        labels = rng.integers(0, 2, count)
        pixels = rng.integers(0, 60, (count, 8, 8, 1), dtype=np.uint8)
        for image, label in zip(pixels, labels, strict=True):
            image[4 * label : 4 * label + 4] += 150
        return Split(pixels, labels)

    return Dataset("halves", ("above", "below"), {"train": make(256), "validation": make(32), "test": make(64)})


@pytest.mark.parametrize("name", EXACT)
def test_rows_that_lose_nothing_at_full_rank(tiny_model: VisionTransformer, name: str) -> None:
    model = tiny_model.double()
    settings = {"rank": 5} if name == "svd-online" else {}
    result = apply(name, model, **settings)
    expected = model(images().double())
    torch.testing.assert_close(result.model.double()(images().double()), expected, rtol=1e-6, atol=1e-6)
    assert all((row.relative_error, row.retained_energy) == (0, 1) for row in result.layers)


def test_full_svd_costs_more_and_reports_full_ranks(tiny_model: VisionTransformer) -> None:
    result = apply("svd-full", tiny_model)
    assert all(row.rank == row.full_rank for row in result.layers)
    assert encoder_macs(result.model.config, tiny_model.config).ratio > 1.3


def test_the_default_rank_is_half_and_one_above_the_full_is_refused(tiny_model: VisionTransformer) -> None:
    for name in ("pca-online", "svd-online", "tensor-online"):
        assert apply(name, tiny_model).model.config.blocks[1].online.rank == 3
        with pytest.raises(InputError, match="expected 1 to 5, got 6"):
            apply(name, tiny_model, rank=6)


def test_epsilon_arrives_in_the_block(tiny_model: VisionTransformer) -> None:
    result = apply("cholesky-online", tiny_model, epsilon="0.5")
    assert result.model.config.blocks[0].online == StoredFactor(epsilon=0.5)


@pytest.mark.parametrize("name", ["pca-online", "tensor-online"])
def test_scores_without_weights_keep_the_values(tiny_model: VisionTransformer, name: str) -> None:
    result = apply(name, tiny_model)
    old, new = tiny_model.linear(0, "qkv"), result.model.linear(0, "qkv")
    assert torch.equal(new.weight, old.weight[32:])
    assert torch.equal(new.bias, old.bias[32:])
    row = result.layers[0]
    assert row.macs == 5 * 16 * 16
    weights = old.weight.detach().double()
    scores = torch.stack([weights[8 * h : 8 * h + 8].T @ weights[16 + 8 * h : 24 + 8 * h] for h in range(2)])
    expected = (scores - (8 / 16) ** 0.5 * torch.eye(16)).norm() / scores.norm()
    assert row.relative_error == pytest.approx(float(expected))


def test_cholesky_symmetric_keeps_the_psd_part_of_each_heads_block(tiny_model: VisionTransformer) -> None:
    result = apply("cholesky-symmetric", tiny_model)
    factors = result.model.blocks[0].attn.queries.factors().detach().double()
    assert torch.equal(factors, factors.tril())
    weights = tiny_model.linear(0, "qkv").weight.detach().double()
    scores = weights[8:16].T @ weights[24:32]
    own = scores[8:, 8:]
    values, vectors = torch.linalg.eigh((own + own.T) / 2)
    torch.testing.assert_close(factors[1] @ factors[1].T, (vectors * values.clamp(min=0)) @ vectors.T, rtol=1e-5, atol=1e-6)
    assert 0 < result.layers[0].relative_error <= 1


def test_its_triangles_are_counted(tiny_model: VisionTransformer) -> None:
    result = apply("cholesky-symmetric", tiny_model)
    packed = 2 * 8 * 9 // 2
    assert result.layers[0].parameters == 16 * 16 + 16 + packed
    assert result.layers[0].macs == 5 * (16 * 16 + 2 * 8 * 8)
    blocks = sum(p.numel() for name, p in result.model.named_parameters() if "attn" in name or "mlp" in name)
    assert encoder_parameters(result.model.config, tiny_model.config).model == blocks


def test_an_online_model_is_not_decomposed_again(tiny_model: VisionTransformer) -> None:
    gram = apply("pca-online", tiny_model).model
    for name in ("cholesky-symmetric", "symmetric", "tensor-online"):
        with pytest.raises(InputError, match="block 0: expected scores that depend on W_q and W_k alone, got attention 'gram'"):
            apply(name, gram, **({"weighting": "none"} if name == "symmetric" else {}))
    for name in ("cholesky-online", "svd-online"):
        with pytest.raises(InputError, match="block 0: expected no online decomposition, got 'pca'"):
            apply(name, gram)


@pytest.mark.parametrize("name", TRAINABLE)
def test_it_trains_from_scratch(halves: Dataset, tmp_path: Path, name: str) -> None:
    settings = {"weighting": "none"} if name == "symmetric" else {}
    result = train_on(halves, PRESET, tmp_path / "run", Progress(), name, settings)
    assert result.test_top1 > 0.8
    trained = load_checkpoint(tmp_path / "run")
    assert trained.config.activation == "relu"
    assert trained.config == apply(name, VisionTransformer(PRESET.model(8, 1, 2)), **settings).model.config


def test_a_method_that_needs_a_trained_model_is_not_trained(halves: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="method 'svd' needs calibration"):
        train_on(halves, PRESET, tmp_path / "run", Progress(), "svd")
    assert not (tmp_path / "run").exists()


def test_the_decks_preset_is_plain() -> None:
    preset = PRESETS["deck"]
    model = preset.model(28, 1, 10)
    assert (model.activation, model.pooling, model.tokens) == ("relu", "cls", 17)
    assert preset.train.token_keep == 1
