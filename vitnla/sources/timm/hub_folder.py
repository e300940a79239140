"""The folder that timm writes for the hub (`save_for_hf`, `push_to_hf_hub`): `config.json` beside the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from vitnla.common.errors import InputError
from vitnla.common.schema import Record, first_complaint
from vitnla.model.checkpoint import CONFIG

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""Names of weight files, in timm's search order."""
_OUTSIDE = ("mean", "std", "crop_pct", "interpolation", "crop_mode")


class _Config(Record):
    model_config = ConfigDict(extra="allow")

    architecture: str
    global_pool: str | None = None
    model_args: dict[str, Any] | None = None
    pretrained_cfg: dict[str, Any] | None = None
    label_names: list[str] | dict[str, str] | None = None


@dataclass(frozen=True)
class HubFolder:
    """Contents of such a folder.

    Args:
        architecture: timm's name of the model.
        model_args: arguments of its constructor.
        pretrained_cfg: sizes, mean, std, crop and interpolation.
        labels: class names in the order of the outputs, where there are any.
        weights: the file of weights.
        notes: conflicts between its entries, and which one is taken.
    """

    architecture: str
    model_args: dict[str, Any]
    pretrained_cfg: dict[str, Any]
    labels: tuple[str, ...] | None
    weights: Path
    notes: tuple[str, ...]


def is_hub_folder(folder: Path) -> bool:
    """Return whether `config.json` there is timm's: only timm's has an `architecture`, not transformers' or ours."""
    try:
        text = (folder / CONFIG).read_bytes()
    except OSError:
        return False
    try:
        _Config.model_validate_json(text)
    except ValidationError:
        return False
    return True


def read_hub_folder(folder: Path) -> HubFolder:
    """Read the folder as timm does: `model_args` and `pretrained_cfg` take precedence; other entries fill gaps.

    Raises:
        InputError: a file is missing, or `config.json` is not timm's.
    """
    path = folder / CONFIG
    try:
        config = _Config.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or error}", "expected the folder that timm.models.save_for_hf writes"
        ) from error
    except ValidationError as error:
        raise InputError(
            f"{path}: {first_complaint(error)}", "expected what timm.models.save_for_hf writes; correct that setting"
        ) from error
    weights = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if weights is None:
        raise InputError(f"{folder} has no {WEIGHT_FILES[0]}", f"expected one of {', '.join(WEIGHT_FILES)} beside {CONFIG}")
    outside: dict[str, Any] = dict(config.model_extra or {})
    inside = config.pretrained_cfg
    arguments = {name: value for name, value in (config.model_args or {}).items() if value is not None}
    if config.global_pool is not None:
        arguments.setdefault("global_pool", config.global_pool)
    settings = dict(inside) if inside is not None else outside
    notes = tuple(
        f"{path}: {name} is {outside[name]} outside of pretrained_cfg and {settings[name]} in it; timm reads the latter, which is taken"
        for name in _OUTSIDE
        if inside is not None and name in outside and settings.get(name) is not None and settings[name] != outside[name]
    )
    names = config.label_names if config.label_names is not None else settings.get("label_names", outside.get("labels"))
    labels = _labels(names, path)
    return HubFolder(config.architecture, arguments, settings, labels, weights, notes)


def _labels(names: Any, path: Path) -> tuple[str, ...] | None:
    if not names:
        return None
    if isinstance(names, dict):
        if sorted(names) != sorted(str(index) for index in range(len(names))):
            raise InputError(
                f"{path}: label_names: expected a list, or keys 0 to {len(names) - 1}",
                "correct label_names, or give --labels FILE",
            )
        return tuple(str(names[str(index)]) for index in range(len(names)))
    return tuple(str(name) for name in names)
