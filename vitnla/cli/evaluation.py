"""The bridge that the arrows demand: `runtime` scores images that it does not know how to load."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.bundle import Bundle
    from runtime.evaluation import Evaluation
    from runtime.runners.base import Images

_BATCH = 500


def load_evaluation(spec: str, split: str = "test", count: int | None = None) -> Evaluation:
    """The test images of a data SPEC, prepared batch by batch as each bundle's manifest says."""
    from runtime.evaluation import Evaluation
    from vitnla.data.dispatch import load_data
    from vitnla.data.preprocessing import Preprocessing

    chosen = load_data(spec).split(split)
    chosen = chosen.head(count) if count else chosen

    def batches(bundle: Bundle) -> Iterator[Images]:
        preprocess = Preprocessing.model_validate(bundle.manifest.preprocessing)
        for start in range(0, len(chosen), _BATCH):
            yield preprocess(chosen.images[start : start + _BATCH])

    return Evaluation(chosen.fingerprint(), chosen.labels, batches)
