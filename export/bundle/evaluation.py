"""Images of a split as an evaluation: `runtime` scores images that it does not know how to load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from export.graph.inputs import bundle_preparation
from runtime.bundle.schema import Bundle
from runtime.check.accuracy import Evaluation
from runtime.runners.base import Images
from vitnla.data.dataset import Split

_BATCH = 500


def evaluation_of(split: Split, count: int | None = None) -> Evaluation:
    """The first `count` images of a split (`None` is all), prepared batch by batch as each bundle's manifest says."""
    chosen = split.head(count)

    def batches(bundle: Bundle) -> Iterator[Images]:
        prepare = bundle_preparation(bundle)
        for start in range(0, len(chosen), _BATCH):
            yield prepare(chosen.images[start : start + _BATCH])

    return Evaluation(cache(lambda first: split.head(first).fingerprint()), chosen.labels, batches)
