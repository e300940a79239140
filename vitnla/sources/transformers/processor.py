"""Preprocessing of a transformers image processor, from `preprocessor_config.json` or, since transformers 5, `processor_config.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vitnla.common.errors import InputError
from vitnla.common.preprocessing import Interpolation
from vitnla.data.preprocessing import Preprocessing
from vitnla.sources.transformers.settings import Settings

RESAMPLE: dict[int, Interpolation] = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Filters by Pillow's numbers."""
Size = dict[str, int] | int


@dataclass(frozen=True)
class ProcessorDefaults:
    """Defaults of the processor's class for settings absent from its file, as in files from before 2023."""

    resample: int
    crop: bool = False
    """True to crop to `crop_size`; without a `crop_size` there is no crop."""
    number_is_shortest_edge: bool = False
    """True if a bare number in `size` is the shorter edge; false if it is both edges."""


PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"


class _Processor(Settings):
    do_resize: bool
    size: Size
    resample: int | None = None
    do_center_crop: bool | None = None
    crop_size: Size | None = None
    do_rescale: bool | None = True
    rescale_factor: float = 1 / 255
    do_normalize: bool
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]


class _Nested(Settings):
    """`processor_config.json` of transformers 5, of models that read text too."""

    image_processor: _Processor


def find_processor(folder: Path) -> tuple[Path | None, tuple[str, ...]]:
    """Return the file that describes the image processor, None where there is none, and a note where two files disagree.

    As in transformers, an `image_processor` in `processor_config.json` takes precedence over `preprocessor_config.json`.

    Raises:
        InputError: `processor_config.json` is no JSON.
    """
    nested, plain = folder / PROCESSOR, folder / PREPROCESSOR
    other = plain if plain.is_file() else None
    if not nested.is_file():
        return other, ()
    try:
        inside = json.loads(nested.read_bytes()).get("image_processor")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{nested}: expected a JSON object: {error}", "copy it again, or save the processor again") from error
    if inside is None:  # as before transformers 5
        return other, ()
    if other is not None and _Nested.read(nested).image_processor != _Processor.read(other):
        return nested, (f"{folder}: {PROCESSOR} and {PREPROCESSOR} disagree; the former is taken, as transformers does",)
    return nested, ()


def read_processor(path: Path, defaults: ProcessorDefaults) -> Preprocessing:
    """Return the preprocessing of a file, if that is a resize, perhaps a centre crop, division by 255 and a normalisation.

    Raises:
        InputError: the file is missing or damaged, or does something else.
    """
    settings = _Nested.read(path).image_processor if path.name == PROCESSOR else _Processor.read(path)
    crop = settings.crop_size is not None and defaults.crop if settings.do_center_crop is None else settings.do_center_crop
    fit = dict(settings.size) if isinstance(settings.size, dict) else _number(settings.size, defaults.number_is_shortest_edge)
    shortest = fit.get("shortest_edge")
    side = shortest or _square(fit)
    target = _crop_side(settings.crop_size) if crop else (None if shortest else side)
    if not settings.do_resize or side is None or target is None or side < target:
        found = f"do_resize {settings.do_resize}, size {settings.size}, crop to {settings.crop_size if crop else None}"
        raise InputError(f"{path}: expected a resize and a crop to a square, got {found}", "correct the processor")
    resample = defaults.resample if settings.resample is None else settings.resample
    if resample not in RESAMPLE:
        raise InputError(f"{path}: unsupported resample {resample}", f"supported: {RESAMPLE}, by Pillow's numbers")
    if not (settings.do_rescale is not False and abs(settings.rescale_factor * 255 - 1) < 1e-6 and settings.do_normalize):
        raise InputError(f"{path}: unsupported scaling", "supported: rescale_factor 1/255, then do_normalize")
    return Preprocessing(
        image_size=target, mean=settings.image_mean, std=settings.image_std, interpolation=RESAMPLE[resample],
        fit="shortest" if shortest else "squash", resize_size=None if side == target else side,
    )  # fmt: skip


def _number(size: int, is_shortest_edge: bool) -> dict[str, int]:
    return {"shortest_edge": size} if is_shortest_edge else {"height": size, "width": size}


def _square(size: dict[str, int]) -> int | None:
    return size["height"] if set(size) == {"height", "width"} and size["height"] == size["width"] else None


def _crop_side(size: Size | None) -> int | None:
    return _square(size) if isinstance(size, dict) else size
