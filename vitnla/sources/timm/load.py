"""`timm:NAME[@WEIGHTS]`: ViTs of timm, built by timm itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.common.preprocessing import Interpolation
from vitnla.data.preprocessing import Preprocessing
from vitnla.sources.conversion import canonical, require_same_logits, weights_digest
from vitnla.sources.library_models import RANDOM, downloading, fill_module, fixed_seed, import_library, split_weights
from vitnla.sources.source_model import SourceModel
from vitnla.sources.tensors import numbered_labels
from vitnla.sources.timm.convert import convert_timm
from vitnla.sources.weights import read_weights

_INTERPOLATIONS: dict[str, Interpolation] = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic"}


def load_timm(rest: str) -> SourceModel:
    """Build `NAME` with timm's pretrained weights, `NAME@FILE` with those of a file, or `NAME@random` with random ones.

    Raises:
        InputError: the name is unknown, the weights cannot be had or do not fit, or a part is not supported; names it.
        MissingDependencyError: timm is not installed.
    """
    name, weights = split_weights(rest, "timm")
    spec = f"timm:{rest}"
    timm = import_library("timm", spec)
    if not timm.is_model(name):
        close = ", ".join(get_close_matches(name, timm.list_models(), 3)) or "see timm.list_models('vit_*')"
        raise InputError(f"{spec}: timm {timm.__version__} has no model '{name}'", f"close to it: {close}")
    file = None if weights in (None, RANDOM) else Path(str(weights))
    module = _build(timm, name, spec, weights) if file is None else _build_from(name, spec, file)
    converted = convert_timm(module, spec)
    model = canonical(converted, spec)
    require_same_logits(model, module, list(module.blocks), spec)
    digest = weights_digest(model) if file is None else sha256_file(file)
    return SourceModel(spec, digest, model, timm_preprocessing(module, spec), timm_labels(module, converted.labels))


def _build(timm: Any, name: str, spec: str, weights: str | None) -> Any:
    if weights == RANDOM:
        with fixed_seed():
            return timm.create_model(name, pretrained=False).eval()
    _check_architecture(timm, name, spec)
    with downloading(spec, "timm", name):
        return timm.create_model(name, pretrained=True).eval()


def _check_architecture(timm: Any, name: str, spec: str) -> None:
    """Refuse an unsupported architecture before gigabytes are downloaded."""
    import torch

    with torch.device("meta"):
        module = timm.create_model(name, pretrained=False)
    convert_timm(module, spec)


def _build_from(name: str, spec: str, file: Path) -> Any:
    """The module with the weights of a file, whose head decides the number of classes; positions may be of another size."""
    timm = import_library("timm", spec)
    vision_transformer = import_library("timm.models.vision_transformer", spec)
    tensors = read_weights(file)
    head = tensors.get("head.weight")
    with fixed_seed():
        module = timm.create_model(name, pretrained=False, **({} if head is None else {"num_classes": len(head)})).eval()
    convert_timm(module, spec)  # an unsupported architecture is named before its weights are looked at
    fill_module(module, dict(vision_transformer.checkpoint_filter_fn(tensors, module)), file)
    return module


def timm_preprocessing(module: Any, origin: str) -> Preprocessing:
    """What timm's own evaluation transform does, from the module's `pretrained_cfg`.

    Raises:
        InputError: it pads, or interpolates otherwise than Pillow by one fixed filter.
    """
    data = import_library("timm.data", origin)
    settings: Mapping[str, Any] = data.resolve_model_data_config(module)
    size = module.patch_embed.img_size[0]
    fits = {"center": "shortest", "squash": "squash"}
    if settings["crop_mode"] not in fits or settings["interpolation"] not in _INTERPOLATIONS:
        found = f"crop_mode '{settings['crop_mode']}', interpolation '{settings['interpolation']}'"
        hint = f"supported: crop_mode {', '.join(fits)}; interpolation {', '.join(_INTERPOLATIONS)}"
        raise InputError(f"{origin}: unsupported preprocessing: {found}", hint)
    resize = math.floor(size / settings["crop_pct"])
    return Preprocessing.model_validate({
        "image_size": size, "mean": tuple(settings["mean"]), "std": tuple(settings["std"]),
        "interpolation": _INTERPOLATIONS[settings["interpolation"]], "fit": fits[settings["crop_mode"]],
        "resize_size": None if resize == size else resize, "crop_rounding": "even",
    })  # fmt: skip


def timm_labels(module: Any, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """ImageNet's names where the number of classes is that of one of its sets; `otherwise` where it is none."""
    data = import_library("timm.data", "timm")
    classes = int(module.num_classes or 0)
    subset = data.infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return otherwise if classes == 0 else numbered_labels(classes)
    info = data.ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(classes))
