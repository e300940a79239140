"""A model that does no better than guessing is told so; scores among some of the classes."""

from __future__ import annotations

import numpy as np
import pytest

from export.graph.inputs import bundle_preparation
from runtime.bundle.schema import Bundle
from runtime.check.accuracy import Evaluation, evaluate
from runtime.results.statistics import chance_warning
from vitnla.data.dataset import Dataset


@pytest.mark.parametrize(
    ("correct", "images", "classes", "warns"),
    [
        (100, 1000, 10, True),
        (60, 1000, 10, True),
        (150, 1000, 10, False),
        (2, 10, 10, True),
        (9, 10, 10, False),
        (0, 10, 1, False),
    ],
)
def test_chance_lies_within_the_interval(correct: int, images: int, classes: int, warns: bool) -> None:
    said = chance_warning(correct, images, classes)
    assert (said is not None) is warns
    if said is not None:
        assert f"{100 * correct / images:.2f}% on {images:,} images is no better than chance" in said
        assert all(cause in said for cause in ("order of the classes", "pooling", "preprocessing", "image size"))


def test_a_score_counts_the_classes_of_the_data_and_warns_of_chance(tiny_bundle: Bundle, tiny_data: Dataset) -> None:
    columns, images = (7, 1, 4), bundle_preparation(tiny_bundle)(tiny_data.split("test").images)
    logits = np.random.default_rng(0).normal(size=(len(images), 10)).astype(np.float32)
    own = logits[:, list(columns)].argmax(1)

    def scored(labels: np.ndarray) -> tuple[float, float | None, bool]:
        evaluation = Evaluation(lambda first: "other", labels, lambda bundle: [images], lambda bundle: columns)
        found = evaluate(lambda batch: logits, tiny_bundle, evaluation)
        return (
            found.top1.value,
            found.agreement,
            any("no better than chance (33.33% for 3 classes)" in one for one in found.warnings),
        )

    assert scored(own) == (1.0, None, False)
    assert scored((own + 1) % 3) == (0.0, None, True)
