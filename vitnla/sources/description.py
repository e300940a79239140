"""Description files that make a checkpoint a source model: preprocessing, labels and origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vitnla.common.files import write_atomically
from vitnla.common.measures import Distillation, LayerRow
from vitnla.common.schema import Record
from vitnla.data.preprocessing import Preprocessing
from vitnla.sources.options import NO_OPTIONS, SourceOptions

PREPROCESSING, LABELS, ORIGIN = "preprocessing.json", "labels.json", "origin.json"


class Labels(Record):
    """Class names, in the order of the logits."""

    labels: tuple[str, ...]


class Origin(Record):
    """The dense model that a checkpoint was made from, and the method: the reference for its costs and outputs."""

    source: str
    """The dense model's SPEC, as it was given."""
    source_sha256: str
    """Its `SourceModel.sha256`."""
    options: SourceOptions = NO_OPTIONS
    """Options it was loaded with."""
    method: str
    method_config: dict[str, Any]
    layers: tuple[LayerRow, ...]
    """The method's row for each linear. Distillation changes the weights but not the shapes; errors are those before it."""
    distillation: Distillation | None = None


def write_description(folder: Path, preprocessing: Preprocessing, labels: tuple[str, ...], origin: Origin | None = None) -> None:
    """Write preprocessing and labels into a checkpoint folder, and the origin of a model that was decomposed."""
    write_atomically(folder / PREPROCESSING, preprocessing.to_json())
    write_atomically(folder / LABELS, Labels(labels=labels).to_json())
    if origin is not None:
        write_atomically(folder / ORIGIN, origin.to_json())
