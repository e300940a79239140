"""The images that a command scores bundles on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.check.accuracy import Evaluation


def load_evaluation(spec: str, split: str = "test", count: int | None = None) -> Evaluation:
    """The test images of a data SPEC, prepared batch by batch as each bundle's manifest says."""
    from export.bundle.evaluation import evaluation_of
    from vitnla.data.load import load_data

    return evaluation_of(load_data(spec).split(split), count)
