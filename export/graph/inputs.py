"""Conversion of images to the input of a bundle's graph, for export, accuracy and users."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtime.bundle.schema import Bundle, TensorSpec
from vitnla.data.image_files import Images
from vitnla.data.preprocessing import Preprocessing

Prepare = Callable[[Images], NDArray[np.float32 | np.uint8]]


def preparation(preprocessing: Preprocessing, spec: TensorSpec) -> Prepare:
    """Return the function that converts images, uint8 [N, H, W, C] or files, to the graph's input.

    Args:
        preprocessing: of the model.
        spec: of the graph's input: float32 [batch, C, H, W], or uint8 [batch, H, W, C] where the graph preprocesses.
    """
    if spec.dtype != "uint8":
        return preprocessing
    height, width = map(int, spec.shape[1:3])
    return lambda images: preprocessing.pixels(images, (height, width))


def bundle_preparation(bundle: Bundle) -> Prepare:
    """Return `preparation` of an existing bundle."""
    return preparation(Preprocessing.model_validate(bundle.manifest.preprocessing), bundle.manifest.input)
