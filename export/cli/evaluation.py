"""The bridge that the arrows demand: `runtime` scores images that it does not know how to load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.bundle.schema import Bundle
    from runtime.check.accuracy import Evaluation
    from runtime.runners.base import Images

_BATCH = 500


def load_evaluation(spec: str, split: str = "test", count: int | None = None, class_map: Path | None = None) -> Evaluation:
    """The test images of a data SPEC, prepared batch by batch as each bundle's manifest says; its classes are matched by name."""
    from export.graph.inputs import bundle_preparation
    from runtime.check.accuracy import Evaluation
    from vitnla.common.notes import note_once
    from vitnla.data.class_mapping import match_classes
    from vitnla.data.load import load_data

    data = load_data(spec, class_map)
    whole = data.split(split)
    chosen = whole.head(count)

    def batches(bundle: Bundle) -> Iterator[Images]:
        prepare = bundle_preparation(bundle)
        for start in range(0, len(chosen), _BATCH):
            yield prepare(chosen.images[start : start + _BATCH])

    def columns(bundle: Bundle) -> tuple[int, ...] | None:
        mapping = match_classes(data.labels, bundle.manifest.labels, data.name)
        if mapping.note is not None:
            note_once(mapping.note)
        return mapping.columns

    return Evaluation(cache(lambda first: whole.head(first).fingerprint()), chosen.labels, batches, columns)


def evaluation_of(bundle: Bundle, evaluation: Evaluation | None) -> Evaluation | None:
    """The evaluation where its labels are about the bundle's classes, else `None`, with a note that says why.

    Raises:
        ClassMismatch: most names match, so that the others are probably misspelt.
    """
    from vitnla.common.notes import note_once
    from vitnla.data.class_mapping import ClassMismatch

    if evaluation is None:
        return None
    try:
        evaluation.columns(bundle)
    except ClassMismatch as error:
        if error.overlap:
            raise
        note_once(f"{bundle.name}: accuracy is not measured: {error.message} ({error.hint})")
        return None
    return evaluation
