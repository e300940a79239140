"""Calibration statistics against what a plain float64 pass over the same activations gives, and their cache."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitnla.calibration import cache as cached
from vitnla.calibration.cache import cached_statistics, model_hash
from vitnla.calibration.collect import _fisher_probe, collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.dataset import Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.model import LowRankLinear, VisionTransformer
from vitnla.model.layers import linear

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))


@pytest.fixture
def images() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (11, 8, 8, 1), np.uint8)


@pytest.fixture
def split(images: NDArray[np.uint8]) -> Split:
    return Split(images, np.zeros(len(images), np.int64))


def same(a: Statistics, b: Statistics) -> bool:
    return (a.images, a.tokens, list(a.linears)) == (b.images, b.tokens, list(b.linears)) and all(
        torch.equal(x.gram, y.gram) and torch.equal(x.mean, y.mean) and (x.tokens, x.sensitivity) == (y.tokens, y.sensitivity)
        for x, y in zip(a.linears.values(), b.linears.values(), strict=True)
    )


@torch.no_grad()
def seen_by(model: VisionTransformer, images: NDArray[np.uint8]) -> dict[str, Tensor]:
    """Inputs [tokens, in] of the first block's linears, computed with the block's own parts."""
    block = model.blocks[0]
    x = model.embed(torch.from_numpy(PREPROCESSING(images)))
    after = x + block.attn(block.norm1(x))
    hidden = torch.nn.functional.gelu(block.mlp.fc1(block.norm2(after)))
    return {"qkv": block.norm1(x), "fc1": block.norm2(after), "fc2": hidden}


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_moments_are_those_of_the_inputs(tiny_model: VisionTransformer, images: NDArray[np.uint8], batch_size: int) -> None:
    statistics = collect(tiny_model, images, PREPROCESSING, batch_size)
    assert (statistics.images, statistics.tokens) == (11, 55)
    assert list(statistics.linears) == tiny_model.linear_names()
    for name, inputs in seen_by(tiny_model, images).items():
        x = inputs.reshape(-1, inputs.shape[-1]).double()
        moments = statistics.linears[0, name]  # type: ignore[index]
        assert moments.tokens == len(x) == 55
        assert moments.gram.dtype == moments.mean.dtype == torch.float64
        assert torch.allclose(moments.gram, x.T @ x / 55, rtol=0, atol=1e-5)
        assert torch.allclose(moments.mean, x.mean(0), rtol=0, atol=1e-5)
        assert torch.allclose(moments.covariance, torch.cov(x.T, correction=0), rtol=0, atol=1e-5)


def test_moments_of_a_low_rank_linear_are_those_of_its_input(tiny_model: VisionTransformer, images: NDArray[np.uint8]) -> None:
    expected = collect(tiny_model, images, PREPROCESSING).linears[0, "fc1"]
    tiny_model.blocks[0].mlp.fc1 = linear(16, 32, rank=4)
    assert isinstance(tiny_model.linear(0, "fc1"), LowRankLinear)
    found = collect(tiny_model, images, PREPROCESSING).linears[0, "fc1"]
    assert torch.equal(found.gram, expected.gram)


def test_fisher_probe_has_the_fisher_information_as_its_covariance() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5]]).expand(200_000, -1)
    p = logits[0].softmax(0).double()
    probe = _fisher_probe(logits, torch.Generator().manual_seed(3)).double()
    assert torch.allclose(probe.T @ probe / len(probe), p.diag() - p.outer(p), rtol=0, atol=3e-3)


def test_sensitivity_predicts_the_divergence_that_a_small_output_error_causes(
    tiny_model: VisionTransformer, images: NDArray[np.uint8]
) -> None:
    """White noise of variance e on one linear's output moves the predictions by KL = elements x sensitivity x e / 2."""
    pixels = torch.from_numpy(PREPROCESSING(images))
    statistics = collect(tiny_model, np.repeat(images, 20, axis=0), PREPROCESSING)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        clean = tiny_model(pixels).double().log_softmax(1)
        for key in [(0, "qkv"), (0, "fc2"), (1, "proj")]:
            module = tiny_model.linear(*key)  # type: ignore[arg-type]
            handle = module.register_forward_hook(lambda _, __, y: y + 0.02 * torch.randn(y.shape, generator=generator))
            noisy = [tiny_model(pixels).double().log_softmax(1) for _ in range(300)]
            handle.remove()
            kl = float(sum((clean.exp() * (clean - other)).sum(1).mean() for other in noisy)) / len(noisy)
            size = 5 * (48 if key[1] == "qkv" else 16)
            expected = size * statistics.linears[key].sensitivity * 0.02**2 / 2  # type: ignore[index]
            assert 0.85 * expected < kl < 1.15 * expected


def test_the_model_is_left_as_it_was(tiny_model: VisionTransformer, images: NDArray[np.uint8]) -> None:
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    seen: list[tuple[int, int]] = []
    collect(tiny_model, images, PREPROCESSING, 4, lambda done, total: seen.append((done, total)))
    assert seen == [(4, 11), (8, 11), (11, 11)]
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_model.state_dict().items())
    assert all(parameter.grad is None for parameter in tiny_model.parameters())
    assert not any(module._forward_hooks for module in tiny_model.modules())


def test_no_images_and_broken_activations_are_refused(tiny_model: VisionTransformer, images: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match="at least one calibration image"):
        collect(tiny_model, images[:0], PREPROCESSING)
    with torch.no_grad():
        tiny_model.blocks[1].norm2.weight[3] = torch.nan
    with pytest.raises(InputError, match="block 1 fc1: expected finite activations"):
        collect(tiny_model, images, PREPROCESSING)
    assert not any(module._forward_hooks for module in tiny_model.modules())


def test_the_cache_returns_what_was_collected(
    tiny_model: VisionTransformer, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path))
    first = cached_statistics(tiny_model, split, PREPROCESSING)
    calls = _count_collections(monkeypatch)
    assert same(cached_statistics(tiny_model, split, PREPROCESSING), first)
    assert calls == []
    cached_statistics(tiny_model, split.head(5), PREPROCESSING)
    cached_statistics(tiny_model, split, PREPROCESSING.model_copy(update={"mean": (0.4,)}))
    with torch.no_grad():
        tiny_model.norm.bias[0] += 1
    cached_statistics(tiny_model, split, PREPROCESSING)
    assert len(calls) == 3


def test_a_damaged_entry_is_computed_again_and_said_so(
    tiny_model: VisionTransformer, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path))
    first = cached_statistics(tiny_model, split, PREPROCESSING)
    (file,) = tmp_path.rglob("statistics.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1  # a bit of a number: the file still reads
    file.write_bytes(content)
    calls = _count_collections(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert same(cached_statistics(tiny_model, split, PREPROCESSING), first)
    assert len(calls) == 1
    assert "is damaged (statistics.safetensors)" in caplog.text
    assert same(cached_statistics(tiny_model, split, PREPROCESSING), first)
    assert len(calls) == 1


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    tiny_model: VisionTransformer, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert cached_statistics(tiny_model, split, PREPROCESSING).images == 11
    assert "are not cached" in caplog.text


def test_model_hash_sees_every_weight(tiny_model: VisionTransformer) -> None:
    seen = {model_hash(tiny_model)}
    for parameter in tiny_model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        seen.add(model_hash(tiny_model))
    assert len(seen) == 1 + len(list(tiny_model.parameters()))


def _count_collections(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def counted(*arguments: object) -> Statistics:
        calls.append(1)
        return collect(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(cached, "collect", counted)
    return calls
