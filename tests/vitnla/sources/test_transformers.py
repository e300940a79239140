"""The adapters of the transformers format against transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tests.helpers.hf_models import save_random
from tests.helpers.source_contract import Made, SourceContract
from vitnla.sources.transformers.load import load_hf

SMALLER = {"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}}
"""A processor whose images are smaller than those that the model was trained for."""


class HfContract(SourceContract):
    kind = ""
    interpolates = False
    """Whether transformers resamples positions without being asked."""

    def make(self, folder: Path, settings: dict[str, Any]) -> Made:
        settings = dict(settings)
        kind, processor = settings.pop("kind", self.kind), settings.pop("processor", None)
        channels = settings.get("num_channels", 3)
        processor = {"image_mean": [0.5] * channels, "image_std": [0.5] * channels} | (processor or {})
        model = save_random(folder, kind, settings, processor)
        asked = {} if self.interpolates or "size" not in processor else {"interpolate_pos_encoding": True}
        return load_hf(folder), lambda images: self.outputs(model, images, asked)

    def outputs(self, model: Any, images: Tensor, asked: dict[str, bool]) -> Tensor:
        if hasattr(model, "get_image_features"):
            features = model.get_image_features(images)
            return features if isinstance(features, Tensor) else features.pooler_output
        out = model(images, **asked)
        found = next(out[name] for name in ("logits", "image_embeds", "pooler_output") if out.get(name) is not None)
        assert isinstance(found, Tensor)
        return found


class TestViT(HfContract):
    kind = "ViTForImageClassification"
    cases: ClassVar = {
        "classifier": {"num_labels": 5},
        "two classes": {"num_labels": 2},
        "other settings": {
            "num_labels": 5,
            "qkv_bias": False,
            "hidden_act": "gelu_new",
            "num_channels": 1,
            "layer_norm_eps": 1e-3,
        },
        "smaller images": {"num_labels": 5, "processor": SMALLER},
        "with a pooler": {"kind": "ViTModel"},
    }


class TestDeiT(HfContract):
    kind = "DeiTForImageClassification"
    cases: ClassVar = {
        "classifier": {"num_labels": 5},
        "two heads": {"num_labels": 5, "kind": "DeiTForImageClassificationWithTeacher"},
        "smaller images": {"num_labels": 5, "kind": "DeiTForImageClassificationWithTeacher", "processor": SMALLER},
        "with a pooler": {"kind": "DeiTModel"},
    }


class TestDinov2(HfContract):
    kind = "Dinov2ForImageClassification"
    interpolates = True
    cases: ClassVar = {
        "classifier": {"num_labels": 5},
        "other settings": {"num_labels": 5, "qkv_bias": False, "hidden_act": "gelu_new", "mlp_ratio": 2},
        "grey, no mask token": {"num_labels": 5, "use_mask_token": False, "num_channels": 1, "layer_norm_eps": 1e-3},
        "positions of 518 for 224 px": {"num_labels": 5, "image_size": 28, "processor": SMALLER},
        "smaller images and a remainder": {"num_labels": 5, "processor": SMALLER | {"crop_size": {"height": 9, "width": 9}}},
        "backbone": {"kind": "Dinov2Model"},
    }


class TestDinov2WithRegisters(HfContract):
    kind = "Dinov2WithRegistersForImageClassification"
    interpolates = True
    cases: ClassVar = {
        "classifier": {"num_labels": 5, "num_register_tokens": 3},
        "smaller images": {"num_labels": 5, "image_size": 28, "processor": SMALLER},
    }


class TestClip(HfContract):
    kind = "CLIPVisionModelWithProjection"
    cases: ClassVar = {
        "projected": {"projection_dim": 8},
        "tower": {"kind": "CLIPVisionModel"},
        "whole model": {"kind": "CLIPModel"},
        "classifier": {"kind": "CLIPForImageClassification", "num_labels": 5},
        "other settings": {"projection_dim": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-3},
        "smaller images": {"projection_dim": 8, "processor": SMALLER},
    }


class TestSiglip(HfContract):
    kind = "SiglipVisionModel"
    cases: ClassVar = {
        "attention pool": {},
        "whole model": {"kind": "SiglipModel"},
        "classifier": {"kind": "SiglipForImageClassification", "num_labels": 5},
        "remainder": {"image_size": 14, "processor": {"size": {"height": 14, "width": 14}}},
        "smaller images": {"processor": SMALLER},
    }


def test_the_output_of_a_tower_is_named_as_an_embedding(tmp_path: Path) -> None:
    save_random(tmp_path, "CLIPVisionModelWithProjection", {"projection_dim": 8})
    source = load_hf(tmp_path)
    assert source.labels == tuple(f"feature {index}" for index in range(8))
    assert source.model.config.classes == 8
    assert torch.is_tensor(source.model.head.weight)
