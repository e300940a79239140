"""scripts/later_images.py: a data set of what a model has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from later_images import later_images

from tests.helpers.idx import idx_bytes
from vitnla.common.errors import InputError
from vitnla.data.formats import fashion_mnist
from vitnla.data.load import load_data

TRAIN, TEST = 50, 10


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The four files, in which image i is all of level i and of class i % 10."""
    monkeypatch.setattr(fashion_mnist, "HELD_OUT", 8)
    monkeypatch.setattr(fashion_mnist, "CALIBRATION", 4)
    for prefix, count in (("train", TRAIN), ("t10k", TEST)):
        levels = np.arange(count, dtype=np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(
            idx_bytes(np.broadcast_to(levels[:, None, None], (count, 28, 28)).copy())
        )
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(levels % 10))
    return f"fashion-mnist:{tmp_path}"


def test_only_later_training_images_are_kept_and_all_test_images(fashion: str, tmp_path: Path) -> None:
    (tmp_path / "later.npz").write_bytes(later_images(fashion, 20))
    data = load_data(f"npz:{tmp_path / 'later.npz'}")
    seen = {name: set(split.pixels()[:, 0, 0, 0].tolist()) for name, split in data.splits.items()}
    assert seen["train"] | seen["validation"] == set(range(20, TRAIN))
    assert not seen["train"] & seen["validation"]
    assert seen["test"] == set(range(TEST))
    for split in data.splits.values():
        np.testing.assert_array_equal(split.labels, split.pixels()[:, 0, 0, 0] % 10)


@pytest.mark.parametrize("first", [-1, TRAIN])
def test_a_number_that_is_no_image_is_refused(fashion: str, first: int) -> None:
    with pytest.raises(InputError, match="below the 50 training images"):
        later_images(fashion, first)
