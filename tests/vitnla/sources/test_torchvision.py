"""The adapter of torchvision against torchvision itself, on tiny random models."""

from __future__ import annotations

import sys
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
