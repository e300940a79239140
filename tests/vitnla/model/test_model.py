"""The canonical model, its config, and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from vitnla.common.errors import InputError
from vitnla.model import (
    LINEARS,
    BlockConfig,
    LowRankLinear,
    Ranks,
    VisionTransformer,
    ViTConfig,
    load_checkpoint,
    save_checkpoint,
)
from vitnla.model.config import PlainMlpConfig, SymmetricAttentionConfig, Truncation
from vitnla.model.cost import encoder_macs
from vitnla.sources.load import PACKAGED, SMALLER, load_model


def variant(config: ViTConfig, **changes: Any) -> ViTConfig:
    return ViTConfig.model_validate(config.model_dump() | changes)


def images(config: ViTConfig, batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, config.channels, config.image_size, config.image_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("batch", [1, 2, 7])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pooling": "cls"},
        {"pooling": "mean", "class_token": False},
        {"registers": 2, "layer_scale": True, "activation": "quick_gelu"},
        {"head_hidden": 5, "activation": "gelu_tanh"},
        {"channels": 3, "activation": "relu"},
    ],
)
def test_every_shape_gives_logits(tiny_config: ViTConfig, changes: dict[str, Any], batch: int) -> None:
    config = variant(tiny_config, **changes)
    model = VisionTransformer(config).eval()
    logits = model(images(config, batch))
    assert logits.shape == (batch, config.classes)
    assert torch.isfinite(logits).all()


def test_images_of_a_batch_do_not_affect_each_other(tiny_model: VisionTransformer) -> None:
    batch = images(tiny_model.config, 4)
    alone = torch.cat([tiny_model(image[None]) for image in batch])
    torch.testing.assert_close(tiny_model(batch), alone, rtol=1e-5, atol=1e-6)


def test_attention_equals_its_definition(tiny_model: VisionTransformer) -> None:
    attention = tiny_model.double().blocks[0].attn
    x = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    qkv = (x @ attention.qkv.weight.T + attention.qkv.bias).reshape(2, 5, 3, 2, 8)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, dim=-1)
    expected = (weights @ v).transpose(1, 2).reshape(2, 5, 16) @ attention.proj.weight.T + attention.proj.bias
    torch.testing.assert_close(attention(x), expected, rtol=1e-12, atol=1e-12)


def test_heads_may_be_narrow_and_linears_low_rank(tiny_config: ViTConfig) -> None:
    block = tiny_config.blocks[0].changed(qk_dim=3, v_dim=5, ranks=Ranks(qkv=4, fc2=2))
    config = variant(tiny_config, blocks=[block.model_dump(), tiny_config.blocks[1].model_dump()])
    model = VisionTransformer(config)
    assert isinstance(model.linear(0, "qkv"), LowRankLinear)
    assert isinstance(model.linear(0, "fc2"), LowRankLinear)
    assert model.linear(0, "proj").weight.shape == (16, 10)
    assert model(images(config)).shape == (3, 10)
    assert [name for _, name in model.linear_names()] == [*LINEARS, *LINEARS]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"patch_size": 3}, "multiple of patch_size"),
        ({"class_token": False}, "needs class_token"),
        ({"dim": 0}, "greater than or equal to 1"),
        ({"blocks": []}, "at least 1"),
        ({"activation": "swish"}, "activation"),
        ({"depth": 2}, "depth"),
    ],
)
def test_inconsistent_config_is_refused(tiny_config: ViTConfig, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        variant(tiny_config, **changes)


def test_rank_above_full_is_refused(tiny_config: ViTConfig) -> None:
    block = tiny_config.blocks[0].model_dump() | {"ranks": {"proj": 17}}
    with pytest.raises(ValidationError, match=r"blocks.0.proj: rank must be at most 16, but got 17"):
        variant(tiny_config, blocks=[block])


def test_uniform_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(InputError, match="multiple of heads 3, but got 16"):
        ViTConfig.uniform(image_size=8, patch_size=4, channels=1, classes=10, dim=16, depth=1, heads=3)


def test_checkpoint_round_trip(tiny_model: VisionTransformer, tmp_path: Path) -> None:
    save_checkpoint(tiny_model, tmp_path / "model")
    loaded = load_checkpoint(tmp_path / "model")
    assert loaded.config == tiny_model.config
    assert not loaded.training
    x = images(tiny_model.config)
    torch.testing.assert_close(loaded(x), tiny_model(x), rtol=0, atol=0)


def test_half_precision_checkpoint_loads_as_float32(tiny_model: VisionTransformer, tmp_path: Path) -> None:
    save_checkpoint(tiny_model, tmp_path / "model", torch.float16)
    assert load_file(tmp_path / "model" / "model.safetensors")["norm.weight"].dtype == torch.float16
    assert {p.dtype for p in load_checkpoint(tmp_path / "model").parameters()} == {torch.float32}


@pytest.mark.parametrize("damage", ["truncated", "nan", "shape", "missing", "extra", "config", "no-config"])
def test_damaged_checkpoint_is_refused(tiny_model: VisionTransformer, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    save_checkpoint(tiny_model, folder)
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    complaint = {
        "truncated": "not a readable safetensors file", "nan": "'norm.weight' holds NaN", "shape": r"'norm.weight' should be \[16\], got \[15\]",
        "missing": "expected weight 'norm.weight'", "extra": "'surplus' is not part", "config": "should be", "no-config": "has no config.json",
    }[damage]  # fmt: skip
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "config":
        config = variant(tiny_model.config, dim=32)
        (folder / "config.json").write_text(config.to_json())
    elif damage == "no-config":
        (folder / "config.json").unlink()
    else:
        tensors["norm.weight"] = {"nan": tensors["norm.weight"] * float("nan"), "shape": tensors["norm.weight"][:15]}.get(
            damage, tensors["norm.weight"]
        )
        if damage == "missing":
            del tensors["norm.weight"]
        if damage == "extra":
            tensors["surplus"] = torch.zeros(1)
        save_file(tensors, weights)
    with pytest.raises(InputError, match=complaint):
        load_checkpoint(folder)


def test_unknown_model_says_what_is_understood() -> None:
    with pytest.raises(InputError, match="unknown model 'resnet'") as caught:
        load_model("resnet")
    assert "hf:FOLDER_OR_ID" in caught.value.hint


def test_demo_model_is_shipped_small_and_consistent() -> None:
    source = load_model("demo")
    config = source.model.config
    assert (config.dim, len(config.blocks)) >= (192, 6)
    assert len(source.labels) == config.classes == 10
    assert (PACKAGED["demo"] / "model.safetensors").stat().st_size <= 10_000_000


def test_the_smaller_demo_is_a_dense_model_for_the_same_images_at_half_the_cost() -> None:
    demo, small = load_model("demo"), load_model(SMALLER["demo"])
    assert small.origin is None
    assert (small.labels, small.preprocessing) == (demo.labels, demo.preprocessing)
    assert 0.4 <= encoder_macs(small.model.config, demo.model.config).ratio <= 0.55


def test_a_block_is_stored_as_it_always_was(tiny_config: ViTConfig) -> None:
    """Configs, manifests and the keys of caches depend on it, to the order of the keys."""
    stored = (
        '{"heads":2,"qk_dim":8,"v_dim":8,"mlp_dim":32,"ranks":{"qkv":null,"proj":null,"fc1":4,"fc2":null},'
        '"attention":"symmetric","online":{"kind":"svd","rank":2,"form":"exact"}}'
    )
    block = BlockConfig.model_validate_json(stored)
    assert block.model_dump_json() == stored
    assert block.attention == SymmetricAttentionConfig(heads=2, qk_dim=8, v_dim=8)
    assert (block.mlp, block.ranks.fc1, block.online) == (PlainMlpConfig(mlp_dim=32), 4, Truncation(kind="svd", rank=2))
    assert ViTConfig.model_validate(tiny_config.model_dump() | {"blocks": [block]}).blocks == (block,)
