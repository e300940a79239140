"""ViTs in the transformers format, read without transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.model.checkpoint import CONFIG
from vitnla.sources.conversion import canonical
from vitnla.sources.options import NO_OPTIONS, SourceOptions, choose_labels, choose_preprocessing
from vitnla.sources.source_model import SourceModel
from vitnla.sources.tensors import Converted, SourceTensors, numbered_labels
from vitnla.sources.timm.hub_folder import is_hub_folder
from vitnla.sources.timm.load import load_timm_folder
from vitnla.sources.transformers.clip import convert_clip, convert_siglip
from vitnla.sources.transformers.dinov2 import convert_dinov2
from vitnla.sources.transformers.processor import (
    PREPROCESSOR,
    PROCESSOR,
    RESAMPLE,
    ProcessorDefaults,
    find_processor,
    read_processor,
)
from vitnla.sources.transformers.settings import Settings, Square
from vitnla.sources.transformers.vit import convert_vit
from vitnla.sources.unsupported import unsupported
from vitnla.sources.weights import read_sharded, read_weights, weights_sha256

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_MODEL_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
_BICUBIC, _BILINEAR = 3, 2
_USUAL_SIZE = 224
"""Transformers' default image size, where config.json leaves it out."""


@dataclass(frozen=True)
class Family:
    """One kind of model: its converter of `config.json` and weights for an image size, and its processor's defaults."""

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
"""Families by `model_type`."""


class _Sizes(Settings):
    image_size: Square | None = None


class _Architecture(_Sizes):
    model_type: str
    vision_config: _Sizes | None = None


def is_transformers_folder(folder: Path) -> bool:
    """Return whether `config.json` there is transformers': it has a `model_type`, which neither ours nor timm's has."""
    try:
        settings = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and "model_type" in settings


def load_hf(place: str | Path, options: SourceOptions = NO_OPTIONS) -> SourceModel:
    """Read a folder of transformers or of timm, or download one by its ID, as a canonical float32 model.

    Raises:
        InputError: a file is missing or damaged, the model has a part that is not supported, or the download failed; names it.
        MissingDependencyError: an ID was given and huggingface_hub is not installed, or a timm folder and timm is not.
    """
    folder = Path(place) if Path(place).is_dir() else _download(str(place))
    load = load_timm_folder if is_hub_folder(folder) else load_transformers_folder
    return load(folder, f"hf:{place}", options)


def load_transformers_folder(folder: Path, spec: str, options: SourceOptions) -> SourceModel:
    """Read a folder that transformers' `save_pretrained` or `Trainer` wrote.

    Positions are resampled where the processor makes images of another size than the model was configured for.

    Raises:
        InputError: a file is missing or damaged, or the model has a part that is not supported; names it.
    """
    options.refuse(("model_args",), spec, f"the folder's {CONFIG} says everything about its architecture; correct that")
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if not (folder / CONFIG).is_file() or weights is None:
        hint = f"expected a transformers folder with {CONFIG}, {PREPROCESSOR} and one of {', '.join(WEIGHT_FILES)}"
        raise InputError(f"{folder} has no {WEIGHT_FILES[0] if (folder / CONFIG).is_file() else CONFIG}", hint)
    architecture = _Architecture.read(folder / CONFIG)
    if architecture.model_type not in FAMILIES:
        raise unsupported(f"{folder}: unsupported model_type '{architecture.model_type}'", architecture.model_type)
    family = FAMILIES[architecture.model_type]
    trained = (architecture.vision_config or architecture).image_size or _USUAL_SIZE
    found, notes = _processor(folder, family.processor, trained, options)
    size = options.image_size or int(found["image_size"])
    read = read_sharded(weights) if weights.name.endswith(".index.json") else read_weights(weights, options.weights_key)
    source = SourceTensors(read.tensors, str(folder), f"a transformers model of type {architecture.model_type}")
    # Of a trainer's own module; no name of transformers begins with "model.".
    source.without_prefix(f"{options.weights_key or 'model'}.")
    converted = family.convert(folder / CONFIG, source, size, str(folder))
    config, model = converted.config, canonical(converted, str(folder))
    if size != trained:
        notes += (
            f"positions are resampled from {trained} to {size} px, {'as asked' if options.image_size else 'the size of the processor'}",
        )
    preprocessing = choose_preprocessing(found, options, image_size=size, channels=config.channels, origin=str(folder))
    known = None if converted.labels == numbered_labels(config.classes) else converted.labels
    labels, unnamed = choose_labels(known, options, config.classes, str(folder))
    digest = weights_sha256(weights, options.weights_key)
    return SourceModel(spec, digest, model, preprocessing, labels, options=options, notes=(*read.notes, *notes, *unnamed))


def _processor(
    folder: Path, defaults: ProcessorDefaults, trained: int, options: SourceOptions
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return fields of `Preprocessing` from the folder, or the family's defaults where the user gives mean and std."""
    path, notes = find_processor(folder)
    if path is not None:
        return read_processor(path, defaults).model_dump(), notes
    if options.preprocessing is None and (options.mean is None or options.std is None):
        hint = (
            "give --mean and --std as it was trained with, such as --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5, or --preprocessing FILE.json, "
            f"or copy {PREPROCESSOR} from the model that it was trained from"
        )
        raise InputError(f"{folder} has no {PREPROCESSOR} (and no {PROCESSOR} with an image_processor)", hint)
    fields: dict[str, Any] = {
        "image_size": options.image_size or trained, "interpolation": RESAMPLE[defaults.resample],
        "fit": "shortest" if defaults.number_is_shortest_edge else "squash",
    }  # fmt: skip
    words = f"{fields['interpolation'] if options.interpolation is None else options.interpolation}, fit '{fields['fit']}'"
    note = f"{folder} has no processor: images are resized as is usual for its kind: {words}"
    return fields, () if options.preprocessing is not None else (note,)


def _download(model_id: str) -> Path:
    """Return the local snapshot of a model on the hub, config and weights only."""
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
