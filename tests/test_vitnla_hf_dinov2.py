"""The DINOv2 adapter against transformers itself, on tiny random models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.sources.hf_dinov2 import load_hf

transformers = pytest.importorskip("transformers")

PROCESSOR = {
    "do_resize": True, "size": {"height": 12, "width": 12}, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip


def save_random(folder: Path, **settings: Any) -> Any:
    """A random Dinov2ForImageClassification, saved as transformers saves it, with gains and offsets that matter."""
    shape = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 12, "patch_size": 4, "num_labels": 5,
    }  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**(shape | settings))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return model


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_random(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"qkv_bias": False},
        {"hidden_act": "gelu_new", "mlp_ratio": 2},
        {"use_mask_token": False, "num_channels": 1, "layer_norm_eps": 1e-3},
    ],
)
def test_logits_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any]) -> None:
    reference = save_random(tmp_path, **settings)
    channels = settings.get("num_channels", 3)
    edit(tmp_path / "preprocessor_config.json", image_mean=[0.5] * channels, image_std=[0.5] * channels)
    images = torch.randn(3, channels, 12, 12)
    with torch.inference_mode():
        expected, found = reference(images).logits, load_hf(tmp_path).model(images)
    assert float((expected - found).abs().max() / expected.abs().max()) < 1e-4


def test_what_comes_with_the_weights(folder: Path) -> None:
    edit(folder / "config.json", id2label={str(index): f"class {index}" for index in reversed(range(5))})
    source = load_hf(folder)
    assert source.labels == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert source.preprocessing.model_dump() == {
        "image_size": 12, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bicubic",
    }  # fmt: skip
    assert source.sha256 == sha256_file(folder / "model.safetensors")
    assert source.spec == f"hf:{folder}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "swin"}, "unsupported model_type 'swin'"),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn"),
        ({"hidden_act": "silu"}, "hidden_act 'silu'"),
        ({"image_size": [12, 16]}, "image_size"),
        ({"hidden_size": 20}, "should be"),
        ({"num_hidden_layers": 3}, "encoder.layer.2"),
        ({"num_hidden_layers": 1}, "encoder.layer.1"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
    ],
)
def test_unsupported_or_contradictory_configs_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_hf(folder)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"shortest_edge": 12}}, "expected a resize to 12 x 12"),
        ({"do_center_crop": True, "crop_size": {"height": 8, "width": 8}}, "expected a resize to 12 x 12"),
        ({"size": {"height": 16, "width": 16}}, "expected a resize to 12 x 12"),
        ({"resample": 1}, "unsupported resample 1"),
        ({"rescale_factor": 1.0}, "unsupported scaling"),
    ],
)
def test_unsupported_preprocessing_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder / "preprocessor_config.json", **changes)
    with pytest.raises(InputError, match=message):
        load_hf(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_missing_and_truncated_files_are_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=name):
        load_hf(folder)
    path.unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        load_hf(folder)


def test_missing_settings_are_named(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(InputError, match="do_resize"):
        load_hf(folder)


@pytest.mark.parametrize(("change", "message"), [("drop", "classifier.weight"), ("add", "'extra'"), ("nan", "NaN")])
def test_other_weights_are_refused(folder: Path, change: str, message: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    if change == "drop":
        del tensors["classifier.weight"]
    elif change == "add":
        tensors["extra"] = torch.zeros(1)
    else:
        tensors["classifier.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load_hf(folder)
