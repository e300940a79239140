"""The images that a command scores bundles on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.bundle.schema import Bundle
    from runtime.check.accuracy import Evaluation


def load_evaluation(spec: str, split: str = "test", count: int | None = None, class_map: Path | None = None) -> Evaluation:
    """Return a split of a data SPEC, prepared batch by batch as each bundle's manifest says; its classes are matched by name."""
    from export.bundle.evaluation import evaluation_of
    from vitnla.data.load import load_data

    return evaluation_of(load_data(spec, class_map), split, count)


def measurable(bundle: Bundle, evaluation: Evaluation | None) -> Evaluation | None:
    """Return the evaluation where its labels are about the bundle's classes, else `None`, with a note that says why.

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
