"""The constants of a bundle that an app needs, as JSON."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from runtime.bundle.schema import MODEL, Bundle, Precision, TensorSpec
from runtime.check.parity import TOLERANCES
from vitnla.common.class_names import are_features
from vitnla.common.errors import InputError
from vitnla.common.preprocessing import CropRounding, Fit, Interpolation, PreprocessingConfig
from vitnla.common.schema import Record, first_complaint

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: 100 million pixels take 0.4 GB as RGBA."""
WHITE = (255, 255, 255)
Size = tuple[int, int]
"""Height and width, pixels."""


class Resizing(Record):
    """The way from an image of any size to the pixels of the input; sizes are [height, width]."""

    fit: Fit
    """`square`: the central square, resized. `squash`: all of it, resized. `shortest`: resized by its shorter side. Then cropped."""
    to: Size
    """For `shortest`, both are the shorter side."""
    crop: Size
    crop_rounding: CropRounding
    interpolation: Interpolation


class Settings(Record):
    """The content of `settings.json`."""

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
    """Colour behind transparent pixels, RGB."""
    max_pixels: int = MAX_PIXELS
    tolerance: float
    """Largest |answer - expected| / max |expected| at this precision."""

    def label(self, answers: NDArray[np.float32]) -> str:
        """Return an app's label for the outputs [classes] of one image: their class, or that they are an embedding."""
        return f"embedding of {len(answers)} values" if self.answers == "embedding" else self.labels[int(answers.argmax())]


def settings_of(bundle: Bundle) -> Settings:
    """Return the constants of a bundle.

    Raises:
        InputError: an app cannot feed it: its batch is fixed above 1, or it takes neither grey nor colour.
    """
    manifest = bundle.manifest
    if bundle.fixed_batch not in (None, 1):
        message = f"{bundle.folder}: an example feeds one image at a time, and this graph runs at batch {bundle.fixed_batch} only"
        raise InputError(message, "export the bundle from a graph with a dynamic batch")
    try:
        preprocessing = PreprocessingConfig.model_validate(manifest.preprocessing)
    except ValidationError as error:
        hint = "export the bundle again with this version"
        raise InputError(f"{bundle.folder}: preprocessing: {first_complaint(error)}", hint) from error
    if preprocessing.channels not in (1, 3):
        message = f"{bundle.folder}: expected a model of 1 or 3 channels, got {preprocessing.channels}"
        raise InputError(message, "image files hold grey or colour")
    shape = manifest.input.shape
    height, width = (int(side) for side in (shape[1:3] if manifest.input.dtype == "uint8" else shape[2:4]))
    return Settings(
        name=bundle.name, model=bundle.model_path.name, external_data=_external_data(bundle), precision=manifest.precision,
        input=manifest.input, output=manifest.output,
        answers=_answers(bundle), channels=preprocessing.channels,
        resizing=_resizing(preprocessing, (height, width)), mean=preprocessing.mean, std=preprocessing.std, labels=_labels(bundle),
        tolerance=TOLERANCES[manifest.precision],
    )  # fmt: skip


def _resizing(preprocessing: PreprocessingConfig, size: Size) -> Resizing:
    """Return the resizing of the preprocessing; where the graph resizes, the whole image is stretched to the size that it takes."""
    side = (preprocessing.image_size, preprocessing.image_size)
    if size != side:
        return Resizing(fit="squash", to=size, crop=size, crop_rounding="down", interpolation=preprocessing.interpolation)
    resized = preprocessing.resize_size or preprocessing.image_size
    return Resizing(
        fit=preprocessing.fit,
        to=(resized, resized),
        crop=side,
        crop_rounding=preprocessing.crop_rounding,
        interpolation=preprocessing.interpolation,
    )


def _answers(bundle: Bundle) -> Literal["logits", "probabilities", "embedding"]:
    if are_features(bundle.manifest.labels):
        return "embedding"
    return "probabilities" if bundle.gives_probabilities else "logits"


def _external_data(bundle: Bundle) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in bundle.folder.glob(f"{MODEL}?*")))


def _labels(bundle: Bundle) -> tuple[str, ...]:
    """Return one label per class, numbered where the bundle has no name."""
    named, classes = bundle.manifest.labels, bundle.manifest.output.shape[-1]
    count = classes if isinstance(classes, int) else len(named)
    return (*named[:count], *(f"class {index}" for index in range(len(named), count)))
