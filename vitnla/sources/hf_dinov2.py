"""DINOv2 classifiers in the transformers format (`Dinov2ForImageClassification`), read without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.checkpoint import CONFIG, WEIGHTS, build, read_tensors
from vitnla.model.config import Activation, ViTConfig
from vitnla.sources.model import SourceModel

PREPROCESSOR = "preprocessor_config.json"
SUPPORTED = ("dinov2",)
_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "quick_gelu": "quick_gelu", "relu": "relu",
}  # fmt: skip
Interpolation = Literal["nearest", "bilinear", "bicubic"]
_RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Numbers of Pillow's filters."""


def load_hf(folder: Path) -> SourceModel:
    """Read `config.json`, `model.safetensors` and `preprocessor_config.json` as a canonical float32 model.

    Raises:
        InputError: a file is missing or damaged, or the model has a part that is not supported; names the file or part.
    """
    for name in (CONFIG, WEIGHTS, PREPROCESSOR):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}", f"expected a transformers folder with {CONFIG}, {WEIGHTS} and {PREPROCESSOR}")
    source = _read_json(folder / CONFIG)
    _check_supported(folder, source)
    try:
        config = _vit_config(source)
        labels = tuple(name for _, name in sorted((int(index), str(name)) for index, name in source["id2label"].items()))
        preprocessing = _preprocessing(folder, _read_json(folder / PREPROCESSOR), config)
    except KeyError as error:
        raise InputError(f"{folder}: expected a setting {error}, which is missing", "save the model again with save_pretrained") from error
    tensors = _rename(read_tensors(folder / WEIGHTS), config, str(folder))
    return SourceModel(f"hf:{folder}", sha256_file(folder / WEIGHTS), build(config, tensors, str(folder)), preprocessing, labels)
