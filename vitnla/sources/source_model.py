"""A trained model together with its preprocessing and class names."""

from __future__ import annotations

from dataclasses import dataclass

from vitnla.data.preprocessing import Preprocessing
from vitnla.model.vit import VisionTransformer
from vitnla.sources.description import Origin
from vitnla.sources.options import NO_OPTIONS, SourceOptions


@dataclass(frozen=True)
class SourceModel:
    """A canonical model, its source (`spec`, and `sha256` of its weights), preprocessing and class names.

    `origin` is the dense model that it was decomposed from, where the checkpoint says so. `options` are those that it was loaded with.
    `notes` say, a line each, what was chosen or assumed because the source does not say it.
    """

    spec: str
    sha256: str
    model: VisionTransformer
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    origin: Origin | None = None
    options: SourceOptions = NO_OPTIONS
    notes: tuple[str, ...] = ()
