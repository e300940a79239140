"""IDX files, Fashion-MNIST, the packaged demo data, and preprocessing."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.idx import idx_bytes
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.demo import load_demo
from vitnla.data.formats import fashion_mnist
from vitnla.data.formats.idx import read_idx
from vitnla.data.load import load_data
from vitnla.data.preprocessing import Preprocessing


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty training and six test images in the true format, gzipped or not, with small split sizes."""
    monkeypatch.setattr(fashion_mnist, "HELD_OUT", 8)
    monkeypatch.setattr(fashion_mnist, "CALIBRATION", 4)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 6)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    return tmp_path


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 3, 4), (0, 28, 28)])
def test_idx_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "file").write_bytes(idx_bytes(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "file"), array)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a", idx_bytes(np.zeros((2, 3), np.uint8))[:-1], "should hold 6 bytes"),
        ("a", idx_bytes(np.zeros((2, 3), np.uint8)) + b"x", "should hold 6 bytes.*got 7"),
        ("a", b"\0\0\x08\x03\0\0", "ends inside its header"),
        ("a", b"\0\0\x0d\x01\0\0\0\0", "no IDX file of unsigned bytes"),
        ("a", b"", "starts with nothing"),
        ("a.gz", gzip.compress(idx_bytes(np.zeros((2, 300), np.uint8)))[:-12], "truncated or damaged gzip"),
        ("a.gz", b"not gzip", "damaged gzip"),
    ],
)
def test_bad_idx_says_what_is_wrong(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read_idx(tmp_path / name)


def test_missing_idx_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nothing"):
        read_idx(tmp_path / "nothing")


def test_fashion_mnist_splits_do_not_overlap_with_test_or_validation(folder: Path) -> None:
    data = load_data(f"fashion-mnist:{folder}")
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 32,
        "calibration": 4,
        "validation": 8,
        "test": 6,
    }
    assert data.split("train").images.shape == (32, 28, 28, 1)
    np.testing.assert_array_equal(data.split("calibration").images, data.split("train").images[-4:])
    held_out = {image.tobytes() for image in data.split("validation").images}
    assert not held_out & {image.tobytes() for image in data.split("train").images}


def test_fashion_mnist_complains_about_its_files(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(6, 10, np.uint8)))
    with pytest.raises(InputError, match="labels below 10, got 10"):
        load_data(f"fashion-mnist:{folder}")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    with pytest.raises(InputError, match="6 images and 5 labels"):
        load_data(f"fashion-mnist:{folder}")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="no t10k-labels-idx1-ubyte"):
        load_data(f"fashion-mnist:{folder}")


@pytest.mark.parametrize("spec", ["demonstration", "fashion-mnist", "fashion-mnist:", "mnist:x"])
def test_unknown_data_lists_the_choices(spec: str) -> None:
    with pytest.raises(InputError, match="unknown data") as caught:
        load_data(spec)
    assert "demo" in caught.value.hint
    assert "fashion-mnist:FOLDER" in caught.value.hint


def test_missing_data_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder at"):
        load_data(f"fashion-mnist:{tmp_path / 'nowhere'}")


def test_unknown_split_lists_the_choices() -> None:
    with pytest.raises(InputError, match="unknown split of data 'x' 'train'"):
        Dataset("x", ("a",), {}).split("train")


def test_demo_data_is_whole_and_its_splits_are_disjoint() -> None:
    data = load_demo()
    assert {name: len(split) for name, split in data.splits.items()} == {"calibration": 1000, "validation": 1000, "test": 10_000}
    assert np.bincount(data.split("test").labels).tolist() == [1000] * 10
    images = {name: {image.tobytes() for image in split.images} for name, split in data.splits.items()}
    assert not images["calibration"] & images["validation"]
    assert not images["calibration"] & images["test"]


def test_damaged_demo_data_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "demo.npz").write_bytes(b"PK\3\4 truncated")
    with pytest.raises(InputError, match="demo data"):
        load_demo(tmp_path / "demo.npz")


def test_fingerprint_depends_on_pixels_and_labels() -> None:
    images, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])
    first = Split(images, labels).fingerprint()
    assert first == Split(images.copy(), labels.copy()).fingerprint()
    assert first != Split(images + np.uint8(1), labels).fingerprint()
    assert first != Split(images, labels[::-1].copy()).fingerprint()


def test_preprocessing_normalises_and_repeats_grey() -> None:
    images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    pixels = Preprocessing(image_size=1, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))(images)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[:, :, 0, 0], [[-1, -1, 0], [1, 3, 1]], rtol=1e-6)


def test_preprocessing_resizes_like_pillow_and_keeps_constants() -> None:
    images = np.full((2, 28, 28, 1), 51, np.uint8)
    pixels = Preprocessing(image_size=14, mean=(0.0,), std=(1.0,), interpolation="bicubic")(images)
    assert pixels.shape == (2, 1, 14, 14)
    np.testing.assert_allclose(pixels, 0.2, atol=1e-6)


def test_preprocessing_refuses_wrong_channels() -> None:
    with pytest.raises(InputError, match="3 channels, got 2"):
        Preprocessing(image_size=1, mean=(0.0,) * 3, std=(1.0,) * 3)(np.zeros((1, 1, 1, 2), np.uint8))
