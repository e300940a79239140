"""Tiny random models in the transformers format, saved as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.helpers.source_contract import shake

SHAPE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "image_size": 12, "patch_size": 4,
}  # fmt: skip
PROCESSOR = {
    "do_resize": True, "size": {"height": 12, "width": 12}, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_normalize": True, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "bos_token_id": 0,
    "eos_token_id": 1,
}


def save_random(folder: Path, kind: str, settings: dict[str, Any], processor: dict[str, Any] | None = None) -> Any:
    """A model of class `kind`, e.g. `ViTForImageClassification`, with gains and offsets that matter."""
    model_class = getattr(transformers, kind)
    config_class = model_class.config_class
    torch.manual_seed(0)
    if config_class.__name__ in ("CLIPConfig", "SiglipConfig"):
        labels = {key: value for key, value in settings.items() if key == "num_labels"}
        tower = {key: value for key, value in settings.items() if key not in labels}
        config = config_class(vision_config=SHAPE | tower, text_config=TEXT, projection_dim=8, **labels)
    else:
        config = config_class(**(SHAPE | settings))
    model = model_class(config).eval()
    shake(model)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR | (processor or {})))
    return model


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; `None` removes one."""
    old = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in old.items() if value is not None}))
