"""A split of a data set as an `Evaluation`, so that `runtime` can score images without loading data sets."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from export.graph.inputs import bundle_preparation
from runtime.bundle.schema import Bundle
from runtime.check.accuracy import Evaluation
from runtime.runners.base import Images
from vitnla.common.notes import note_once
from vitnla.data.class_mapping import match_classes
from vitnla.data.dataset import Dataset

_BATCH = 500


def evaluation_of(data: Dataset, split: str, count: int | None = None) -> Evaluation:
    """Return the first `count` images of a split (`None` is all), prepared batch by batch as each bundle's manifest says.

    Classes of the data are matched with those of each bundle by name.
    """
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
