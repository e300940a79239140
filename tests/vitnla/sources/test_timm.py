"""The adapter of timm against timm itself, on tiny random models."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import QuickGELU
from torch import nn

from tests.helpers.source_contract import Made, SourceContract, shake
from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.common.files import sha256_file
from vitnla.data.preprocessing import Preprocessing
from vitnla.sources.load import load_model
from vitnla.sources.options import SourceOptions
from vitnla.sources.timm.load import load_timm

TINY = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "mlp_ratio": 1.5, "num_classes": 5}
NARROW = {"embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`create_model` makes every model tiny, so that the whole path from the name is tested."""
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: original(name, **({"img_size": 28, **NARROW} | options)))


class TestTimm(SourceContract):
    cases: ClassVar = {
        "vit": {},
        "mean, norm after pooling": {"global_pool": "avg", "class_token": False},
        "mean, norm before pooling": {"global_pool": "avg", "fc_norm": False},
        "mean of all tokens": {"global_pool": "avg", "pool_include_prefix": True, "reg_tokens": 2},
        "class token, norm after pooling": {"fc_norm": True},
        "no last norm": {"final_norm": False},
        "layer scale": {"init_values": 0.1},
        "registers without positions": {"reg_tokens": 3, "no_embed_class": True, "init_values": 0.1},
        "registers with positions": {"reg_tokens": 3},
        "no class token, registers": {"reg_tokens": 2, "class_token": False, "global_pool": "avg", "no_embed_class": True},
        "no positions": {"pos_embed": "none"},
        "clip": {"pre_norm": True, "act_layer": QuickGELU, "norm_layer": partial(nn.LayerNorm, eps=1e-5)},
        "attention pool": {"global_pool": "map", "class_token": False, "act_layer": "gelu_tanh"},
        "attention pool with a class token": {"global_pool": "map", "num_classes": 0},
        "tower": {"num_classes": 0, "pre_norm": True},
        "no biases": {"qkv_bias": False, "proj_bias": False},
        "remainder": {"img_size": 18, "patch_size": 4},
        "grey": {"in_chans": 1},
        "dynamic size": {"dynamic_img_size": True},
        "distilled": {"distilled": True},
    }

    def make(self, folder: Path, settings: dict[str, Any]) -> Made:
        settings = TINY | settings
        name = "deit_tiny_distilled_patch16_224" if settings.pop("distilled", False) else "vit_tiny_patch16_224"
        module = timm.create_model(name, pretrained=False, **settings).eval()
        shake(module)
        from vitnla.sources.from_module import from_module

        channels = settings.get("in_chans", 3)
        return from_module(module, preprocessing=_plain(settings["img_size"], channels)), module


def _plain(size: int, channels: int) -> Any:
    from vitnla.data.preprocessing import Preprocessing

    return Preprocessing(image_size=size, mean=(0.5,) * channels, std=(0.5,) * channels)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch14_reg4_dinov2",
        "vit_base_patch16_siglip_224",
        "vit_base_patch16_clip_quickgelu_224",
        "deit3_small_patch16_224",
    ],
)
def test_random_weights_are_asked_for_and_always_the_same(name: str) -> None:
    source = load_model(f"timm:{name}@random")
    assert source.sha256 == load_timm(f"{name}@random").sha256
    assert source.spec == f"timm:{name}@random"
    assert source.model.config.image_size == 28


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_a_file_with_other_classes_and_positions(tmp_path: Path, suffix: str) -> None:
    module = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=7).eval()
    shake(module)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": module.state_dict(), "epoch": 3}, path)
    else:
        save_file(module.state_dict(), path)
    source = load_timm(f"vit_tiny_patch16_224@{path}")
    assert (source.model.config.classes, source.model.config.image_size) == (7, 64)
    asked = load_timm(f"vit_tiny_patch16_224@{path}", SourceOptions(image_size=28))
    assert (asked.model.config.classes, asked.model.config.image_size) == (7, 28)
    assert any("resampled from 64 to 28 px, as asked" in note for note in asked.notes)
    assert source.labels[6] == "class 6"
    assert source.sha256 == sha256_file(path)
    torch.testing.assert_close(source.model.head.weight, module.head.weight)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vit_tiny_patch16_999@random", "no model"),
        ("vit_tiny_patch16_224@", "names no model or no weights"),
        ("vit_tiny_patch16_224@absent.safetensors", "no file at"),
        ("vit_tiny_patch16_224@weights.npz", "unknown kind of weights file"),
    ],
)
def test_bad_specs(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_timm(spec)
    assert caught.value.hint


@pytest.mark.usefixtures("tiny")
def test_weights_of_another_model_and_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"head.weight": torch.zeros(3, 16)}, path)
    with pytest.raises(
        InputError, match=r"expected a timm ViT's weights, such as 'patch_embed\.proj\.weight', found 'head\.weight'"
    ):
        load_timm(f"vit_tiny_patch16_224@{path}")
    path = tmp_path / "weights.pth"
    path.write_bytes(b"\x80damaged")
    with pytest.raises(InputError, match=r"weights\.pth"):
        load_timm(f"vit_tiny_patch16_224@{path}")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("swin_tiny_patch4_window7_224", "shifted windows"),
        ("convnext_atto", "without attention"),
        ("eva02_tiny_patch14_224", "rotary"),
        ("beit_base_patch16_224", "relative position"),
        ("vit_giant_patch14_dinov2", "SwiGLU"),
        ("vit_small_patch16_18x2_224", "ParallelThingsBlock"),
        ("vit_base_r26_s32_224", "HybridEmbed"),
    ],
)
def test_unsupported_parts_are_named_before_anything_is_downloaded(name: str, part: str) -> None:
    with pytest.raises(InputError, match=part) as caught:
        load_timm(name)
    assert "deit3_*" in caught.value.hint


@pytest.mark.usefixtures("tiny")
def test_a_failed_download_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    create = timm.create_model

    def offline(name: str, *, pretrained: bool = False, **options: Any) -> Any:
        if pretrained:
            raise ConnectionError("no network")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match="no network") as caught:
        load_timm("vit_tiny_patch16_224")
    assert "@random" in caught.value.hint


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="timm") as caught:
        load_timm("vit_tiny_patch16_224")
    assert "pip install timm" in caught.value.hint


def test_a_conversion_that_differs_names_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitnla.sources.from_module import from_module

    module = timm.create_model("vit_tiny_patch16_224", **TINY).eval()
    shake(module)
    block = module.blocks[1]
    monkeypatch.setattr(block, "forward", lambda x, original=block.forward: original(x).flip(-1))
    with pytest.raises(InputError, match="first in block 1"):
        from_module(module, preprocessing=_plain(16, 3))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "vit_base_patch16_clip_224.openai"])
def test_preprocessing_is_that_of_timm(name: str) -> None:
    from PIL import Image
    from timm.data import create_transform, resolve_data_config

    from vitnla.sources.timm.preprocessing import timm_preprocessing

    with torch.device("meta"):
        module = timm.create_model(name)
    fields, notes = timm_preprocessing(module.pretrained_cfg, 224, 3, name)
    assert notes == ()
    preprocessing = Preprocessing.model_validate(fields)
    transform = create_transform(**resolve_data_config(model=module))
    for shape in ((300, 451, 3), (231, 200, 3), (224, 224, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        expected = transform(Image.fromarray(pixels)).numpy()
        np.testing.assert_allclose(preprocessing(pixels[None])[0], expected, atol=1e-5)


@pytest.mark.usefixtures("tiny")
def test_imagenet_names() -> None:
    labels = load_timm("vit_tiny_patch16_224@random").labels
    assert len(labels) == 1000
    assert labels[0].startswith("tench")
