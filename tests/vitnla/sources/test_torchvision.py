"""The adapter of torchvision against torchvision itself, on tiny random models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

from tests.helpers.source_contract import Made, SourceContract, shake
from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.data.preprocessing import Preprocessing
from vitnla.sources.from_module import from_module
from vitnla.sources.options import SourceOptions
from vitnla.sources.torchvision.load import load_torchvision

TINY: dict[str, Any] = {
    "image_size": 16, "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24, "num_classes": 5,
}  # fmt: skip
PLAIN = Preprocessing(image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3)


class TestTorchvision(SourceContract):
    cases: ClassVar = {"vit": {}, "hidden head": {"representation_size": 12}}

    def make(self, folder: Path, settings: dict[str, Any]) -> Made:
        module = VisionTransformer(**(TINY | settings)).eval()
        shake(module)
        return from_module(module, preprocessing=PLAIN), module


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """`get_model` makes every model tiny, so that the whole path from the name is tested."""

    def get_model(name: str, weights: Any = None, **options: Any) -> Any:
        if weights is not None:
            raise OSError("no network")
        return VisionTransformer(**(TINY | {"patch_size": 32, "num_classes": 1000} | options)).eval()

    monkeypatch.setattr(torchvision.models, "get_model", get_model)


@pytest.mark.usefixtures("tiny")
def test_names_weights_and_labels(tmp_path: Path) -> None:
    source = load_torchvision("vit_b_16@random")
    assert source.labels[0] == "tench"
    assert (source.preprocessing.image_size, source.preprocessing.resize_size, source.preprocessing.fit) == (224, 256, "shortest")
    module = VisionTransformer(**(TINY | {"patch_size": 32, "image_size": 224, "num_classes": 3}))
    shake(module)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    assert load_torchvision(f"vit_b_16@{tmp_path / 'w.pth'}").labels == ("class 0", "class 1", "class 2")
    with pytest.raises(InputError, match="no network"):
        load_torchvision("vit_b_16")
    with pytest.raises(InputError, match="no network"):
        load_torchvision("vit_b_16@IMAGENET1K_SWAG_E2E_V1")


def hidden(module: Any) -> None:
    module.heads = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(16, 4))


def plain(module: Any) -> None:
    module.heads = torch.nn.Linear(16, 4)


def inside(module: Any) -> None:
    module.heads.head = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(16, 4))


def headless(module: Any) -> None:
    module.heads = torch.nn.Identity()


def grey(module: Any) -> None:
    module.conv_proj = torch.nn.Conv2d(1, 16, 32, 32)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (plain, {}),
        (hidden, {}),
        (inside, {}),
        (headless, {}),
        (lambda module: None, {"representation_size": 12}),
        (lambda module: None, {"image_size": 384}),
        (lambda module: None, {"num_classes": 1000}),
        (grey, {}),
    ],
)
@torch.inference_mode()
def test_what_a_file_says_decides(change: Callable[[Any], None], settings: dict[str, Any], tmp_path: Path) -> None:
    module = VisionTransformer(**(TINY | {"patch_size": 32, "image_size": 64} | settings)).eval()
    change(module)
    shake(module)
    torch.save({"state_dict": {f"module.{name}": x for name, x in module.state_dict().items()}}, tmp_path / "w.ckpt")
    channels = module.conv_proj.in_channels
    options = SourceOptions() if channels == 3 else SourceOptions(mean=(0.4,), std=(0.2,))
    source = load_torchvision(f"vit_b_16@{tmp_path / 'w.ckpt'}", options)
    size = settings.get("image_size", 64)
    images = torch.randn(2, channels, size, size)
    torch.testing.assert_close(source.model(images), module.eval()(images), atol=1e-4, rtol=1e-4)
    assert source.preprocessing.image_size == size
    assert source.preprocessing.resize_size == size * 256 // 224
    assert source.labels[0] == ("feature 0" if change is headless else "class 0")
    assert any("images are prepared as for torchvision's ViT_B_16_Weights" in note for note in source.notes)


@pytest.mark.usefixtures("tiny")
def test_options_and_refusals_of_files(tmp_path: Path) -> None:
    module = VisionTransformer(**(TINY | {"patch_size": 32, "image_size": 64}))
    shake(module)
    path = tmp_path / "w.pth"
    torch.save(module.state_dict(), path)
    source = load_torchvision(f"vit_b_16@{path}", SourceOptions(image_size=96, mean=(0.5,) * 3))
    assert (source.model.config.image_size, source.preprocessing.mean) == (96, (0.5,) * 3)
    assert any("resampled from 64 to 96 px, as asked" in note for note in source.notes)
    assert load_torchvision("vit_b_16@random", SourceOptions(image_size=64)).model.config.image_size == 64
    with pytest.raises(InputError, match="--model-args cannot be applied"):
        load_torchvision(f"vit_b_16@{path}", SourceOptions(model_args={"global_pool": "avg"}))
    torch.save(module.state_dict() | {"encoder.pos_embedding": torch.zeros(1, 7, 16)}, path)
    with pytest.raises(InputError, match="expected a square grid of square patches, found 6 patches"):
        load_torchvision(f"vit_b_16@{path}")
    torch.save({"patch_embed.proj.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"such as 'conv_proj\.weight', found 'patch_embed\.proj\.weight'"):
        load_torchvision(f"vit_b_16@{path}")
    torch.save(module.state_dict() | {"heads.a.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(InputError, match="unsupported head of 2 linears"):
        load_torchvision(f"vit_b_16@{path}")
    torch.save({name: x for name, x in module.state_dict().items() if "encoder_layer_1" not in name}, path)
    with pytest.raises(InputError, match=r"lacks 'encoder\.layers\.encoder_layer_1.* and 7 more"):
        load_torchvision(f"vit_b_16@{path}")


@pytest.mark.parametrize(
    ("name", "message"),
    [("swin_t", "shifted windows"), ("resnet18", "without attention"), ("vit_x_1", "unknown torchvision model")],
)
def test_other_models_are_refused(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_torchvision(name)


def test_a_convolutional_stem_is_refused() -> None:
    stem = [ConvStemConfig(8, 3, 2), ConvStemConfig(16, 3, 2)]
    with pytest.raises(InputError, match="several convolutions"):
        from_module(VisionTransformer(**TINY, conv_stem_configs=stem), preprocessing=PLAIN)


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingDependencyError, match="torchvision"):
        load_torchvision("vit_b_16@random")


@pytest.mark.usefixtures("tiny")
def test_preprocessing_is_that_of_torchvision() -> None:
    preprocessing = load_torchvision("vit_b_16@random").preprocessing
    transform = torchvision.models.ViT_B_16_Weights.DEFAULT.transforms()
    for shape in ((300, 451, 3), (231, 200, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        np.testing.assert_allclose(preprocessing(pixels[None])[0], transform(Image.fromarray(pixels)).numpy(), atol=1e-5)
