"""Steps shared by exports of models and of ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from export.precision.request import Lowering
from export.precision.runtimes.base import ASYMMETRIC
from runtime.bundle.schema import Parity
from vitnla.common.errors import InputError, VerdictError
from vitnla.common.schema import Record
from vitnla.data.dataset import Dataset, Split
from vitnla.data.image_files import Images

REFERENCE_IMAGES = 8


def default_name(spec: str, method: str, config: Record, lowering: Lowering) -> str:
    """Return a bundle's name: model, method, settings that differ from the default, and precision unless fp32.

    An example is `demo-svd-0.65-int8`."""
    words = [Path(spec.partition(":")[2] or spec).name.removesuffix(".onnx"), method]
    words += [str(value) for value in config.model_dump(exclude_defaults=True).values() if not isinstance(value, dict)]
    if lowering.precision != "fp32":
        words += [lowering.precision, *([] if lowering.runtime == "ort" else [lowering.runtime])]
        words += [lowering.activations] if lowering.activations != ASYMMETRIC else []
    return "-".join(words)


def evaluation_split(data: Dataset, labels: Sequence[str], name: str, count: int | None) -> Split:
    """Return the first `count` images of a split for measuring a model's accuracy.

    Data of other classes do not fail an export: `Split.classes` and a note then give the reason why there is no accuracy.

    Args:
        data: the data set.
        labels: class names of the model.
        name: of the split.
        count: of images; `None` is all.

    Raises:
        InputError: the data's classes are the model's but for some names, or the split has no images.
    """
    split = data.for_model(labels, required=False).split(name)
    if count is not None:
        split = split.head(count)
    if not len(split):
        raise InputError(
            f"split '{name}' of data '{data.name}' holds no images to evaluate on", "add images, or name data that has them"
        )
    return split


def require_parity(parity: Parity, *, allowed: bool, reference: str, hint: str) -> None:
    """Check that logits are those of the `reference`; a difference may be `allowed`.

    Raises:
        VerdictError: they differ, or are not finite.
    """
    if not np.isfinite(parity.max_rel):
        broken = "the weights overflow fp32, or the exporter is at fault; no bundle can be made of this model"
        raise VerdictError("the logits hold NaN or infinity", broken)
    if not parity.met and not allowed:
        raise VerdictError(
            f"the logits differ from {reference} by {parity.max_rel:.1e} of the largest, expected at most {parity.tolerance:.0e}",
            f"{hint}; --allow-parity-failure writes the bundle all the same and marks it",
        )


def evenly_spaced(images: Images, count: int) -> Images:
    """Return `count` evenly spaced images of a split, which covers the classes of splits sorted by class."""
    return images[np.linspace(0, len(images) - 1, count).round().astype(np.int64)]


def counter(what: str, on_step: Callable[[str], None]) -> Callable[[int, int], None]:
    """Return a progress callback that reports the number of images done to `on_step`."""
    return lambda done, total: on_step(f"{what}: {done} of {total} images")
