"""ViTs in the transformers format, read without transformers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.model.checkpoint import CONFIG
from vitnla.sources.conversion import canonical
from vitnla.sources.source_model import SourceModel
from vitnla.sources.tensors import Converted, SourceTensors
from vitnla.sources.transformers.clip import convert_clip, convert_siglip
from vitnla.sources.transformers.dinov2 import convert_dinov2
from vitnla.sources.transformers.processor import ProcessorDefaults, read_processor
from vitnla.sources.transformers.settings import Settings
from vitnla.sources.transformers.vit import convert_vit
from vitnla.sources.unsupported import unsupported
from vitnla.sources.weights import read_sharded, read_weights, weights_sha256

PREPROCESSOR = "preprocessor_config.json"
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_MODEL_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_BICUBIC, _BILINEAR = 3, 2


@dataclass(frozen=True)
class Family:
    """One kind of model: how to convert `config.json` and weights for images of a size, and its processor's defaults."""

    convert: Callable[[Path, SourceTensors, int, str], Converted]
    processor: ProcessorDefaults


_CLIP = Family(convert_clip, ProcessorDefaults(_BICUBIC, crop=True, number_is_shortest_edge=True))
_SIGLIP = Family(convert_siglip, ProcessorDefaults(_BICUBIC))
_DINOV2 = Family(convert_dinov2, ProcessorDefaults(_BICUBIC, crop=True, number_is_shortest_edge=True))
FAMILIES = {
    "vit": Family(convert_vit, ProcessorDefaults(_BILINEAR)),
    "deit": Family(convert_vit, ProcessorDefaults(_BICUBIC, crop=True)),
    "dinov2": _DINOV2, "dinov2_with_registers": _DINOV2,
    "clip": _CLIP, "clip_vision_model": _CLIP, "siglip": _SIGLIP, "siglip_vision_model": _SIGLIP,
}  # fmt: skip
"""By `model_type`."""


class _Architecture(Settings):
    model_type: str


def load_hf(place: str | Path) -> SourceModel:
    """Read a folder, or download a model by its ID, as a canonical float32 model.

    Positions are resampled where the processor makes images of another size than the model was configured for.

    Raises:
        InputError: a file is missing or damaged, the model has a part that is not supported, or the download failed; names it.
        MissingDependencyError: an ID was given and huggingface_hub is not installed.
    """
    folder = Path(place) if Path(place).is_dir() else _download(str(place))
    missing = next((name for name in (CONFIG, PREPROCESSOR) if not (folder / name).is_file()), None)
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if missing or weights is None:
        hint = f"expected a transformers folder with {CONFIG}, {PREPROCESSOR} and one of {', '.join(WEIGHT_FILES)}"
        raise InputError(f"{folder} has no {missing or WEIGHT_FILES[0]}", hint)
    model_type = _Architecture.read(folder / CONFIG).model_type
    if model_type not in FAMILIES:
        raise unsupported(f"{folder}: unsupported model_type '{model_type}'", model_type)
    family = FAMILIES[model_type]
    preprocessing = read_processor(folder / PREPROCESSOR, family.processor)
    tensors = read_sharded(weights) if weights.name.endswith(".index.json") else read_weights(weights)
    source = SourceTensors(tensors, str(folder), f"a transformers model of type {model_type}")
    converted = family.convert(folder / CONFIG, source, preprocessing.image_size, str(folder))
    model = canonical(converted, str(folder))
    return SourceModel(f"hf:{place}", weights_sha256(weights), model, preprocessing, converted.labels)


def _download(model_id: str) -> Path:
    """The local snapshot of a model on the hub, config and weights only."""
    if not _MODEL_ID.fullmatch(model_id):
        raise InputError(f"hf:{model_id}: no such folder", "expected hf:FOLDER, or hf:OWNER/NAME to download a model")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        hint = "pip install huggingface_hub, or give a local folder"
        raise MissingDependencyError(f"hf:{model_id}: a download needs the package huggingface_hub", hint) from error
    try:
        return Path(snapshot_download(model_id, allow_patterns=["*.json", "model*.safetensors", "pytorch_model*.bin"]))
    # The hub's client raises its own errors, those of its HTTP library and of the file system.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        hint = "check the name and the network, or give a folder that was downloaded before: hf:FOLDER"
        raise InputError(f"hf:{model_id}: no such folder, and it cannot be downloaded: {reason}", hint) from error
