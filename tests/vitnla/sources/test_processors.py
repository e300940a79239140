"""Preprocessing read from a transformers processor against that processor."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitnla.data.image_files import ImageFiles
from vitnla.data.preprocessing import Preprocessing
from vitnla.sources.transformers.load import FAMILIES
from vitnla.sources.transformers.processor import read_processor

NAMES = {"vit": "ViT", "deit": "DeiT", "clip": "CLIP", "siglip": "Siglip"}


def pillow_processor(family: str) -> Any:
    """The class whose resizing is Pillow's, as it is in every release."""
    module = import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return getattr(module, f"{NAMES[family]}ImageProcessorPil")()


@pytest.mark.parametrize("family", list(NAMES))
def test_pixels_are_those_of_the_processor(family: str, tmp_path: Path) -> None:
    processor = pillow_processor(family)
    processor.save_pretrained(tmp_path)
    preprocessing = read_processor(tmp_path / "preprocessor_config.json", FAMILIES[family].processor)
    for shape in ((300, 451, 3), (231, 200, 3)):
        pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        expected = processor(Image.fromarray(pixels), return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(preprocessing(pixels[None])[0], expected, atol=2e-5)


def test_files_are_treated_as_arrays_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 47, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for fit in ("squash", "shortest"):
        preprocessing = Preprocessing.model_validate({
            "image_size": 20, "mean": (0.5,) * 3, "std": (0.5,) * 3, "fit": fit, "resize_size": 24
        })  # fmt: skip
        found = preprocessing(ImageFiles(tmp_path, ("a.png",)))
        np.testing.assert_array_equal(found, preprocessing(pixels[None]))
        assert found.shape == (1, 3, 20, 20)


def test_old_preprocessing_files_mean_what_they_meant() -> None:
    old = json.dumps({"image_size": 8, "mean": [0.5], "std": [0.25], "interpolation": "bilinear"})
    found = Preprocessing.model_validate_json(old)
    assert (found.fit, found.resize_size, found.crop_rounding) == ("square", None, "down")


@pytest.mark.parametrize(
    "changes",
    [{"fit": "squash", "resize_size": 4}, {"resize_size": 12}, {"fit": "pad"}, {"crop_rounding": "up"}, {"image_size": 0}],
)
def test_settings_that_contradict_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"resize_size|fit|crop_rounding|image_size"):
        Preprocessing.model_validate({"image_size": 8, "mean": (0.5,), "std": (0.5,)} | changes)
