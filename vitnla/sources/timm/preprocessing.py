"""Preprocessing of timm's evaluation transform, and the class names of timm's own weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vitnla.common.errors import InputError
from vitnla.common.preprocessing import Interpolation
from vitnla.sources.library_models import import_library

_INTERPOLATIONS: dict[str, Interpolation] = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic"}
_FITS = {"center": "shortest", "squash": "squash"}


def timm_preprocessing(
    pretrained_cfg: Any, image_size: int, channels: int, origin: str
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return fields of `Preprocessing` by timm's `pretrained_cfg`, timm's defaults where it says nothing, and notes.

    Args:
        pretrained_cfg: timm's, as a mapping or as its dataclass.
        image_size: side of the model's images, of which the config says the share that is cut out.
        channels: of the model. One mean for all channels of the config holds for another number of channels too.
        origin: names the source in errors.

    Raises:
        InputError: it pads, or interpolates otherwise than Pillow by one fixed filter.
    """
    known = dict(pretrained_cfg) if isinstance(pretrained_cfg, Mapping) else pretrained_cfg.to_dict()
    settings: Mapping[str, Any] = import_library("timm.data", origin).resolve_data_config({}, pretrained_cfg=known)
    if settings["crop_mode"] not in _FITS or settings["interpolation"] not in _INTERPOLATIONS:
        found = f"crop_mode '{settings['crop_mode']}', interpolation '{settings['interpolation']}'"
        hint = f"give --preprocessing FILE.json; of timm's are supported: crop_mode {', '.join(_FITS)}; interpolation {', '.join(_INTERPOLATIONS)}"
        raise InputError(f"{origin}: unsupported preprocessing: {found}", hint)
    resize = math.floor(image_size / settings["crop_pct"])
    fields: dict[str, Any] = {
        "image_size": image_size, "interpolation": _INTERPOLATIONS[settings["interpolation"]], "fit": _FITS[settings["crop_mode"]],
        "resize_size": None if resize == image_size else resize, "crop_rounding": "even",
    }  # fmt: skip
    missing = [name for name in ("mean", "std", "crop_pct", "interpolation") if known.get(name) is None]
    notes = [f"{origin} does not say {', '.join(missing)}: timm's defaults are taken"] if missing else []
    for name in ("mean", "std"):
        values = tuple(float(value) for value in settings[name])
        if len(values) != channels and len(set(values)) == 1:
            notes.append(
                f"{name} {values[0]:g} is taken for {channels} channel{'s' if channels > 1 else ''}, as it is the same for all {len(values)}"
            )
            values = values[:1] * channels
        fields[name] = values
    return fields, tuple(notes)


def imagenet_labels(module: Any) -> tuple[str, ...] | None:
    """Return ImageNet's names where timm's own weights have as many classes as one of its sets; None where they do not."""
    data = import_library("timm.data", "timm")
    classes = int(module.num_classes or 0)
    subset = data.infer_imagenet_subset({"num_classes": classes})
    if subset is None:
        return None
    info = data.ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(classes))
