"""All that an app must know about a bundle, as one JSON of constants."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from runtime.bundle.schema import MODEL, Bundle, Precision, TensorSpec
from runtime.check.parity import TOLERANCES
from vitnla.common.class_names import are_features
from vitnla.common.errors import InputError
from vitnla.common.schema import Record, first_complaint

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: 100 million pixels take 0.4 GB as RGBA."""
WHITE = (255, 255, 255)
Fit = Literal["square", "squash", "shortest"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]
Rounding = Literal["down", "even"]
Size = tuple[int, int]


class _Preprocessing(Record):
    """The fields of `Manifest.preprocessing`, which `runtime` cannot import from where they are defined."""

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Interpolation = "bilinear"
    fit: Fit = "square"
    resize_size: int | None = None
    crop_rounding: Rounding = "down"


class Resizing(Record):
    """From an image of any size to the pixels that are fed; sizes are [height, width]."""

    fit: Fit
    """`square`: the central square, resized. `squash`: all of it, resized. `shortest`: resized by its shorter side. Then cropped."""
    to: Size
    """For `shortest`, both are the shorter side."""
    crop: Size
    crop_rounding: Rounding
    interpolation: Interpolation


class Settings(Record):
    """What `settings.json` holds."""

    name: str
    model: str
    external_data: tuple[str, ...]
    """Files beside the model that hold its weights. Browsers cannot look for them."""
    precision: Precision
    input: TensorSpec
    output: TensorSpec
    answers: Literal["logits", "probabilities", "embedding"]
    channels: int
    resizing: Resizing
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Not used where the input is uint8: there the graph scales the pixels itself."""
    labels: tuple[str, ...]
    background: tuple[int, int, int] = WHITE
    """What shows through transparent pixels, RGB."""
    max_pixels: int = MAX_PIXELS
    tolerance: float
    """Largest |answer - expected| / max |expected| that the precision allows."""

    def label(self, answers: NDArray[np.float32]) -> str:
        """What an app calls the answers [classes] of one image: their class, or that they are an embedding."""
        return f"embedding of {len(answers)} values" if self.answers == "embedding" else self.labels[int(answers.argmax())]


def settings_of(bundle: Bundle) -> Settings:
    """The constants of a bundle.

    Raises:
        InputError: an app cannot feed it: its batch is fixed above 1, or it takes neither grey nor colour.
    """
    manifest = bundle.manifest
    if bundle.fixed_batch not in (None, 1):
        found = f"{bundle.folder}: an example feeds one image at a time, and this graph runs at batch {bundle.fixed_batch} only"
        raise InputError(found, "export the bundle from a graph with a dynamic batch")
    try:
        given = _Preprocessing.model_validate(manifest.preprocessing)
    except ValidationError as error:
        hint = "export the bundle again with this version"
        raise InputError(f"{bundle.folder}: preprocessing: {first_complaint(error)}", hint) from error
    if len(given.mean) not in (1, 3):
        found = f"{bundle.folder}: expected a model of 1 or 3 channels, got {len(given.mean)}"
        raise InputError(found, "image files hold grey or colour")
    shape = manifest.input.shape
    height, width = (int(side) for side in (shape[1:3] if manifest.input.dtype == "uint8" else shape[2:4]))
    return Settings(
        name=bundle.name, model=bundle.model_path.name, external_data=_external_data(bundle), precision=manifest.precision,
        input=manifest.input, output=manifest.output,
        answers=_answers(bundle), channels=len(given.mean),
        resizing=_resizing(given, (height, width)), mean=given.mean, std=given.std, labels=_labels(bundle),
        tolerance=TOLERANCES[manifest.precision],
    )  # fmt: skip


def _resizing(given: _Preprocessing, size: Size) -> Resizing:
    """As `Preprocessing` does it; pixels that the graph is to resize itself are the whole image, stretched to what it takes."""
    side = (given.image_size, given.image_size)
    if size != side:
        return Resizing(fit="squash", to=size, crop=size, crop_rounding="down", interpolation=given.interpolation)
    resized = given.resize_size or given.image_size
    return Resizing(
        fit=given.fit, to=(resized, resized), crop=side, crop_rounding=given.crop_rounding, interpolation=given.interpolation
    )


def _answers(bundle: Bundle) -> Literal["logits", "probabilities", "embedding"]:
    if are_features(bundle.manifest.labels):
        return "embedding"
    return "probabilities" if bundle.gives_probabilities else "logits"


def _external_data(bundle: Bundle) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in bundle.folder.glob(f"{MODEL}?*")))


def _labels(bundle: Bundle) -> tuple[str, ...]:
    """One per class; numbers for classes that the bundle has no name for."""
    named, classes = bundle.manifest.labels, bundle.manifest.output.shape[-1]
    count = classes if isinstance(classes, int) else len(named)
    return (*named[:count], *(f"class {index}" for index in range(len(named), count)))
