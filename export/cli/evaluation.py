"""The bridge that the arrows demand: `runtime` scores images that it does not know how to load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.bundle.schema import Bundle
    from runtime.check.accuracy import Evaluation
    from runtime.runners.base import Images

_BATCH = 500


def load_evaluation(spec: str, split: str = "test", count: int | None = None) -> Evaluation:
    """The test images of a data SPEC, prepared batch by batch as each bundle's manifest says."""
    from export.graph.inputs import bundle_preparation
    from runtime.check.accuracy import Evaluation
    from vitnla.data.load import load_data

    whole = load_data(spec).split(split)
    chosen = whole.head(count)

    def batches(bundle: Bundle) -> Iterator[Images]:
        prepare = bundle_preparation(bundle)
        for start in range(0, len(chosen), _BATCH):
            yield prepare(chosen.images[start : start + _BATCH])

    return Evaluation(cache(lambda first: whole.head(first).fingerprint()), chosen.labels, batches)
