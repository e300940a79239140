"""Symmetric forms of a matrix against brute force, and symmetric attention made from a dense model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.methods.symmetric.apply import apply
from vitnla.methods.symmetric.config import SymmetricConfig
from vitnla.model import VisionTransformer
from vitnla.model.cost import encoder_macs, encoder_parameters

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss(matrix: Tensor, found: Tensor, root: Tensor) -> float:
    return float((root.T @ (matrix - found) @ root).norm())


@pytest.fixture
def statistics(tiny_model: VisionTransformer) -> Statistics:
    return collect(tiny_model, IMAGES, PREPROCESSING)


class TestMethod:
    def test_scores_that_are_symmetric_already_are_kept(self, tiny_model: VisionTransformer, statistics: Statistics) -> None:
        """With K = Q s and b_k = b_q s the attention is of that form, biases included."""
        qkv = tiny_model.linear(0, "qkv")
        signs = torch.ones(16).index_fill(0, torch.tensor([1, 5, 11]), -1.0)
        with torch.no_grad():
            qkv.weight[16:32] = qkv.weight[:16] * signs[:, None]
            qkv.bias[16:32] = qkv.bias[:16] * signs
        statistics = collect(tiny_model, IMAGES, PREPROCESSING)
        result = apply(tiny_model, statistics, SymmetricConfig())
        row = result.layers[0]
        assert row.relative_error < 1e-5
        assert row.retained_energy == pytest.approx(1)
        tokens = tiny_model.embed(torch.from_numpy(PREPROCESSING(IMAGES[:4])))
        seen = tiny_model.blocks[0].norm1(tokens)
        torch.testing.assert_close(result.model.blocks[0].attn(seen), tiny_model.blocks[0].attn(seen), rtol=1e-3, atol=1e-4)

    def test_the_reported_error_is_that_of_the_scores(self, tiny_model: VisionTransformer, statistics: Statistics) -> None:
        """Over all pairs of tokens of all images, about each query's mean over the keys: what softmax can see."""
        result = apply(tiny_model, statistics, SymmetricConfig())
        tokens = tiny_model.embed(torch.from_numpy(PREPROCESSING(IMAGES)))
        x = tiny_model.blocks[0].norm1(tokens).detach().double().reshape(-1, 16)
        old, new = tiny_model.linear(0, "qkv").double(), result.model.linear(0, "qkv").double()
        scale = result.model.blocks[0].attn.key_scale.detach().double()
        q, k = old(x).detach().split([16, 16, 16], dim=-1)[:2]
        shared = new(x).detach()[:, :16]
        error, energy = 0.0, 0.0
        for own in (slice(0, 8), slice(8, 16)):
            wanted, found = q[:, own] @ k[:, own].T, shared[:, own] @ (shared * scale)[:, own].T
            wanted, found = (part - part.mean(1, keepdim=True) for part in (wanted, found))
            error += float((wanted - found).square().mean())
            energy += float(wanted.square().mean())
        assert result.layers[0].relative_error == pytest.approx((error / energy) ** 0.5, rel=1e-4)
        assert result.layers[0].retained_energy == pytest.approx(1 - error / energy, rel=1e-4)

    def test_the_measure_of_the_activations_is_better_on_them_and_psd_is_worse(
        self, tiny_model: VisionTransformer, statistics: Statistics
    ) -> None:
        signed, psd = (apply(tiny_model, statistics, SymmetricConfig(signs=signs)) for signs in ("signed", "psd"))  # type: ignore[arg-type]
        assert all(a.relative_error <= b.relative_error for a, b in zip(signed.layers, psd.layers, strict=True))
        assert (psd.model.blocks[0].attn.key_scale == 1).all()
        assert set(signed.model.blocks[0].attn.key_scale.tolist()) <= {-1.0, 0.0, 1.0}

    def test_one_projection_is_gone(self, tiny_model: VisionTransformer, statistics: Statistics) -> None:
        result = apply(tiny_model, statistics, SymmetricConfig())
        assert result.model.linear(0, "qkv").weight.shape == (32, 16)
        row = result.layers[0]
        assert (row.macs, row.parameters) == (5 * (32 * 16 + 16), 32 * 16 + 32 + 16)
        blocks = sum(p.numel() for name, p in result.model.named_parameters() if "attn" in name or "mlp" in name)
        assert encoder_parameters(result.model.config, tiny_model.config).model == blocks
        assert encoder_macs(result.model.config, tiny_model.config).ratio < 1

    def test_statistics_are_asked_for(self, tiny_model: VisionTransformer) -> None:
        method = METHODS["symmetric"]
        assert method.needs_statistics(SymmetricConfig())
        assert not method.needs_statistics(SymmetricConfig(weighting="none"))
        with pytest.raises(InputError, match="expected calibration statistics"):
            apply(tiny_model, None, SymmetricConfig())
        result: Any = apply(tiny_model, None, SymmetricConfig(weighting="none"))
        assert 0 < result.layers[0].relative_error < 1
