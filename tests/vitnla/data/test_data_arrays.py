"""Data that are read whole: CIFAR, SVHN, NumPy archives; and how the training images are divided."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from vitnla.common.errors import InputError
from vitnla.data.dataset import Split
from vitnla.data.load import load_data
from vitnla.data.splits import assemble, assemble_whole, shuffled

RNG = np.random.default_rng(0)
COARSE = 19


def random_split(count: int, classes: int = 10) -> Split:
    """Random images whose first pixel is their number, so that they can be told apart."""
    images = RNG.integers(0, 256, (count, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return Split(images, RNG.integers(0, classes, count))


def records(split: Split, before: tuple[int, ...] = ()) -> bytes:
    """CIFAR's binary form: label bytes, then the red, green and blue planes, row by row."""
    planes = split.pixels().transpose(0, 3, 1, 2).reshape(len(split), -1)
    rows = zip(split.labels.tolist(), planes, strict=True)
    return b"".join(bytes([*before, label]) + plane.tobytes() for label, plane in rows)


def numbers(split: Split) -> list[int]:
    return [int(image[0, 0, 0]) for image in split.pixels()]


def write_cifar10(folder: Path) -> tuple[Split, Split]:
    training, test = random_split(50), random_split(7)
    for number in range(5):
        (folder / f"data_batch_{number + 1}.bin").write_bytes(records(training.take(slice(10 * number, 10 * number + 10))))
    (folder / "test_batch.bin").write_bytes(records(test))
    return training, test


def write_cifar100(folder: Path) -> tuple[Split, Split]:
    training, test = random_split(50, 100), random_split(7, 100)
    (folder / "train.bin").write_bytes(records(training, (COARSE,)))
    (folder / "test.bin").write_bytes(records(test, (COARSE,)))
    (folder / "fine_label_names.txt").write_text("".join(f"class {number}\n" for number in range(100)) + "\n")
    return training, test


def write_svhn(folder: Path) -> tuple[Split, Split]:
    halves = random_split(50), random_split(7)
    for name, half in zip(("train", "test"), halves, strict=True):
        labels = np.where(half.labels == 0, 10, half.labels).astype(np.uint8)[:, None]
        savemat(folder / f"{name}_32x32.mat", {"X": half.pixels().transpose(1, 2, 3, 0), "y": labels}, do_compression=True)
    return halves


def write_npz(folder: Path) -> tuple[Split, Split]:
    halves = random_split(50), random_split(7)
    images, labels = (np.concatenate(parts) for parts in ([half.pixels() for half in halves], [half.labels for half in halves]))
    np.savez(folder / "data.npz", images=images, labels=labels, splits=np.repeat(["train", "test"], [50, 7]))
    return halves


WRITERS: dict[str, Callable[[Path], tuple[Split, Split]]] = {
    "cifar10": write_cifar10, "cifar100": write_cifar100, "svhn": write_svhn, "npz": write_npz,
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRITERS))
def test_images_and_labels_are_read_as_written(tmp_path: Path, name: str) -> None:
    training, test = WRITERS[name](tmp_path)
    data = load_data(f"{name}:{tmp_path / 'data.npz' if name == 'npz' else tmp_path}")
    assert {part: len(split) for part, split in data.splits.items()} == {
        "train": 45, "validation": 5, "calibration": 5, "test": 7,
    }  # fmt: skip
    np.testing.assert_array_equal(data.split("test").pixels(), test.pixels())
    np.testing.assert_array_equal(data.split("test").labels, test.labels)
    for part in ("train", "validation"):
        split = data.split(part)
        np.testing.assert_array_equal(split.pixels(), training.pixels()[numbers(split)])
        np.testing.assert_array_equal(split.labels, training.labels[numbers(split)])
    assert len(data.labels) > max(training.labels.max(), test.labels.max())


def test_cifar_archives_are_found_as_they_unpack(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-bin").mkdir()
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    assert load_data(f"cifar10:{tmp_path}").labels[3] == "cat"


@pytest.mark.parametrize(
    ("name", "inside", "file"), [("cifar10", "cifar-10-batches-py", "test_batch"), ("cifar100", ".", "test")]
)
def test_the_python_version_of_cifar_is_refused_with_the_reason(tmp_path: Path, name: str, inside: str, file: str) -> None:
    (tmp_path / inside).mkdir(exist_ok=True)
    (tmp_path / inside / file).write_bytes(b"\x80\x04N.")
    with pytest.raises(InputError, match="pickles are never loaded") as caught:
        load_data(f"{name}:{tmp_path}")
    assert ".bin and hold raw bytes" in caught.value.hint


def damage_cifar10(folder: Path) -> None:
    path = folder / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])


def mislabel_cifar10(folder: Path) -> None:
    (folder / "test_batch.bin").write_bytes(bytes([11]) + bytes(3072))


def damage_svhn(folder: Path) -> None:
    path = folder / "train_32x32.mat"
    path.write_bytes(path.read_bytes()[:-5_000])


def mislabel_svhn(folder: Path) -> None:
    savemat(folder / "test_32x32.mat", {"X": np.zeros((32, 32, 3, 2), np.uint8), "y": np.array([[0], [1]], np.uint8)})


@pytest.mark.parametrize(
    ("name", "damage", "complaint"),
    [
        ("cifar10", damage_cifar10, r"data_batch_3\.bin: expected records of 3,073 bytes each, got 30,729 bytes"),
        ("cifar10", mislabel_cifar10, r"test_batch\.bin: expected labels below 10, got 11"),
        ("cifar10", lambda folder: (folder / "data_batch_5.bin").unlink(), r"cannot read .*data_batch_5\.bin"),
        ("cifar10", lambda folder: (folder / "test_batch.bin").unlink(), r"no test_batch\.bin in .* or .*cifar-10-batches-bin"),
        ("cifar100", lambda folder: (folder / "test.bin").write_bytes(b""), r"test\.bin: .*3,074 bytes each, got 0 bytes"),
        ("cifar100", lambda folder: (folder / "fine_label_names.txt").write_text("one"), "expected 100 names of classes, got 1"),
        ("cifar100", lambda folder: (folder / "fine_label_names.txt").unlink(), r"fine_label_names\.txt: expected names"),
        ("svhn", damage_svhn, r"train_32x32\.mat: expected a MATLAB 5 file"),
        ("svhn", mislabel_svhn, r"test_32x32\.mat: expected y of whole numbers from 1 to 10, got uint8 0 to 1"),
        ("svhn", lambda folder: (folder / "test_32x32.mat").write_bytes(b"MATLAB"), r"test_32x32\.mat: expected a MATLAB 5"),
        ("svhn", lambda folder: (folder / "test_32x32.mat").unlink(), r"no test_32x32\.mat in"),
        ("svhn", lambda folder: savemat(folder / "test_32x32.mat", {"X": np.zeros(3)}), "expected arrays X and y, got no y"),
        ("svhn", lambda folder: savemat(folder / "test_32x32.mat", {"X": np.zeros(3), "y": [1]}), r"expected X of uint8 \(32"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: Callable[[Path], object], complaint: str) -> None:
    WRITERS[name](tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=complaint):
        load_data(f"{name}:{tmp_path}")


@pytest.mark.parametrize("cut", [3, 60, 200, 0.3, 0.6, 0.9, 0.999])
def test_svhn_cut_anywhere_is_an_input_error(tmp_path: Path, cut: float) -> None:
    write_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content)) if cut < 1 else int(cut)])
    with pytest.raises(InputError, match="train_32x32"):
        load_data(f"svhn:{tmp_path}")


GREY, LABELS = np.zeros((10, 4, 4), np.uint8), np.arange(10)


def test_npz_without_splits_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY + np.arange(10, dtype=np.uint8)[:, None, None], labels=LABELS)
    first, second = (load_data(f"npz:{tmp_path / 'a.npz'}") for _ in range(2))
    assert {name: split.pixels().shape for name, split in first.splits.items()} == {
        "train": (7, 4, 4, 1), "validation": (1, 4, 4, 1), "calibration": (1, 4, 4, 1), "test": (2, 4, 4, 1),
    }  # fmt: skip
    assert first.labels == tuple("0123456789")
    for name, split in first.splits.items():
        assert split.fingerprint() == second.split(name).fingerprint()
        assert numbers(split) == split.labels.tolist()


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"images": GREY}, "expected labels of whole numbers .* got none"),
        ({"labels": LABELS}, "expected images of uint8 .* got none"),
        ({"images": GREY.astype(float), "labels": LABELS}, "got float64"),
        ({"images": GREY[0], "labels": LABELS}, r"got uint8 \(4, 4\)"),
        ({"images": GREY, "labels": LABELS / 2}, "got float64"),
        ({"images": GREY, "labels": LABELS - 1}, "expected labels from 0, got -1"),
        ({"images": GREY, "labels": LABELS[:3]}, "10 images and 3 labels"),
        ({"images": GREY, "labels": LABELS, "splits": np.repeat(["train", "tests"], 5)}, "'train' and 'test', got .*tests"),
        ({"images": GREY, "labels": LABELS, "splits": np.repeat("train", 3)}, r"expected splits \(10,\)"),
        ({"images": GREY, "labels": LABELS, "splits": np.repeat("train", 10)}, "1 test image, got 10 and 0"),
        ({"images": GREY, "labels": np.array(["a", None] * 5, object)}, "plain arrays, got: .*allow_pickle"),
    ],
)
def test_npz_says_what_it_expected(tmp_path: Path, arrays: dict[str, NDArray[np.generic]], complaint: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=complaint):
        load_data(f"npz:{tmp_path / 'a.npz'}")


def test_npz_that_is_none_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=GREY, labels=LABELS)
    whole = (tmp_path / "a.npz").read_bytes()
    np.save(tmp_path / "single.npy", GREY)
    (tmp_path / "flipped.npz").write_bytes(whole[:300] + bytes(byte ^ 255 for byte in whole[300:340]) + whole[340:])
    for name, content in {"cut.npz": whole[:200], "empty.npz": b"", "text.npz": b"images,labels"}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("cut.npz", "empty.npz", "text.npz", "single.npy", "flipped.npz"):
        with pytest.raises(InputError, match=name):
            load_data(f"npz:{tmp_path / name}")
    with pytest.raises(InputError, match="no file at"):
        load_data(f"npz:{tmp_path}")


@pytest.mark.parametrize(("count", "held_out", "calibrating"), [(2, 1, 1), (19, 1, 1), (100, 10, 10), (255, 25, 25)])
def test_validation_is_held_out_and_calibration_is_not(count: int, held_out: int, calibrating: int) -> None:
    data = assemble("x", ("a",), random_split(count), random_split(3))
    train, calibration, validation = (set(numbers(data.split(name))) for name in ("train", "calibration", "validation"))
    assert (len(validation), len(calibration)) == (held_out, calibrating)
    assert calibration <= train
    assert not validation & train
    assert validation | train == set(range(count))


def test_large_sets_hold_out_a_fixed_number() -> None:
    whole = Split(np.zeros((25_000, 1, 1, 1), np.uint8), np.arange(25_000))
    data = assemble("x", ("a",), whole, random_split(3))
    assert {name: len(data.split(name)) for name in ("validation", "calibration")} == {"validation": 2_000, "calibration": 1_000}
    # The order is part of the definition of the split: results of other versions must stay comparable.
    assert shuffled(whole).labels[:4].tolist() == [14_149, 8_946, 22_378, 12_162]


def test_too_few_images_to_divide() -> None:
    with pytest.raises(InputError, match="at least 2 training images and 1 test image, got 1 and 1"):
        assemble_whole("x", ("a",), random_split(2))
    with pytest.raises(InputError, match="got 0 and 0"):
        assemble_whole("x", ("a",), random_split(0))
