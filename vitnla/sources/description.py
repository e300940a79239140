"""The two small files beside a checkpoint's weights that make it a source model."""

from __future__ import annotations

from pathlib import Path

from vitnla.common.files import write_atomically
from vitnla.common.schema import Record
from vitnla.data.preprocessing import Preprocessing

PREPROCESSING, LABELS = "preprocessing.json", "labels.json"


class Labels(Record):
    """Class names, in the order of the logits."""

    labels: tuple[str, ...]


def write_description(folder: Path, preprocessing: Preprocessing, labels: tuple[str, ...]) -> None:
    """Write both files into a checkpoint folder."""
    write_atomically(folder / PREPROCESSING, preprocessing.to_json())
    write_atomically(folder / LABELS, Labels(labels=labels).to_json())
