"""Images that stay files: class folders, Food-101, ImageNet, and how files are decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitnla.calibration.collect import collect
from vitnla.common.errors import InputError
from vitnla.common.notes import note_once
from vitnla.data.class_mapping import match_classes
from vitnla.data.dataset import Dataset, Split
from vitnla.data.image_files import ImageFiles, find_images, image_suffixes, skipped_note
from vitnla.data.load import load_data
from vitnla.data.preprocessing import Preprocessing
from vitnla.model import VisionTransformer
from vitnla.model.predict import predict
from vitnla.training.config import Preset, TrainConfig
from vitnla.training.loop import Progress
from vitnla.training.run import train_on

PLAIN = Preprocessing(image_size=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def write_image(path: Path, value: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(path)


def write_classes(folder: Path, classes: dict[str, int], suffix: str = ".png", first: int = 0) -> None:
    """Images of one colour each, the next one brighter by one, with a file among them that is no image."""
    value = first
    for name, count in classes.items():
        for number in range(count):
            write_image(folder / name / f"{number:03d}{suffix}", value)
            value += 1
        (folder / name / "notes.txt").write_text("not an image")


def values(split: Split) -> list[int]:
    return [round(float(image.mean() * 255)) for image in PLAIN(split.images)]


def sizes(data: Dataset) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def test_class_folders_with_train_and_test(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"ant": 15, "bee": 15})
    write_classes(tmp_path / "test", {"bee": 4}, first=100)
    (tmp_path / "train" / ".cache").mkdir()
    data = load_data(f"folder:{tmp_path}")
    assert data.labels == ("ant", "bee")
    assert sizes(data) == {"train": 27, "calibration": 3, "validation": 3, "test": 4}
    assert values(data.split("test")) == [100, 101, 102, 103]
    assert data.split("test").labels.tolist() == [1] * 4
    fitted, held_out = data.split("train"), data.split("validation")
    assert sorted(values(fitted) + values(held_out)) == list(range(30))
    assert [value >= 15 for value in values(fitted)] == fitted.labels.astype(bool).tolist()
    assert len(set(fitted.labels[:10].tolist())) == 2


def test_one_level_of_class_folders_is_split_the_same_way_every_time(tmp_path: Path) -> None:
    write_classes(tmp_path, {"ant": 20, "bee": 20})
    first, second = (load_data(f"folder:{tmp_path}") for _ in range(2))
    assert sizes(first) == {"train": 29, "calibration": 3, "validation": 3, "test": 8}
    seen = [value for name in ("train", "validation", "test") for value in values(first.split(name))]
    assert sorted(seen) == list(range(40))
    for name, split in first.splits.items():
        assert split.fingerprint() == second.split(name).fingerprint()


def test_bad_class_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder of images for each class, got no folders"):
        load_data(f"folder:{tmp_path}")
    write_classes(tmp_path / "train", {"ant": 5})
    with pytest.raises(InputError, match="expected train and test"):
        load_data(f"folder:{tmp_path}")
    write_classes(tmp_path / "test", {"wasp": 5})
    with pytest.raises(InputError, match="expected only classes that are known, got 'wasp'"):
        load_data(f"folder:{tmp_path}")
    (tmp_path / "train" / "bee").mkdir()
    with pytest.raises(InputError, match="bee: expected image files, got none"):
        load_data(f"folder:{tmp_path}")


def test_train_and_val_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    note_once.cache_clear()
    write_classes(tmp_path / "train", {"ant": 15, "bee": 15})
    write_classes(tmp_path / "val", {"ant": 1, "bee": 2}, first=100)
    data = load_data(f"folder:{tmp_path}")
    assert values(data.split("test")) == [100, 101, 102]
    assert sizes(data)["validation"] == 3
    assert any("has no test: 'val' is the test split" in message for message in caplog.messages)


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "training", {"ant": 5, "bee": 5})
    write_classes(tmp_path / "testing", {"ant": 5, "bee": 5})
    with pytest.raises(InputError, match="got 'testing' with folders in it"):
        load_data(f"folder:{tmp_path}")


def test_nested_folders_and_what_is_skipped_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    note_once.cache_clear()
    write_classes(tmp_path, {"ant": 9, "bee": 9})
    write_classes(tmp_path / "ant", {"winged": 9})
    write_classes(tmp_path / "bee" / "wild", {"small": 9})
    (tmp_path / "ant" / "000.png").rename(tmp_path / "ant" / "000.jfif")
    (tmp_path / "bee" / ".hidden.txt").write_text("")
    (tmp_path / "bee" / "README").write_text("")
    data = load_data(f"folder:{tmp_path}")
    assert data.labels == ("ant", "bee")
    assert sum(sizes(data)[name] for name in ("train", "validation", "test")) == 36
    assert len(np.unique(np.concatenate([split.labels for split in data.splits.values()]))) == 2
    said = " ".join(caplog.messages)
    assert "18 of 36 images lie in folders within the class folders" in said
    assert "5 files are no images and were skipped: 4 .txt, 1 no suffix" in said


def test_avif_is_read_where_pillow_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photo.avif").touch()
    (tmp_path / "photo.jfif").touch()
    for reads in (True, False):
        image_suffixes.cache_clear()
        monkeypatch.setattr("PIL.features.check", lambda name, reads=reads: reads)
        found, skipped = find_images(tmp_path)
        assert found == (["photo.avif", "photo.jfif"] if reads else ["photo.jfif"])
        note = skipped_note(tmp_path, skipped)
        assert note is None if reads else "reads no AVIF" in str(note)
    image_suffixes.cache_clear()


def test_folders_of_numbers_are_in_their_order(tmp_path: Path) -> None:
    write_classes(tmp_path, {str(number): 2 for number in (10, 2, 0, 11, 1)})
    data = load_data(f"folder:{tmp_path}")
    assert data.labels == ("0", "1", "2", "10", "11")


def test_synset_folders_are_named_by_the_mapping_file(tmp_path: Path) -> None:
    write_classes(tmp_path, {"n01440764": 5, "n02102040": 5})
    assert load_data(f"folder:{tmp_path}").labels == ("n01440764", "n02102040")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n01440764 tench, Tinca tinca\nn02102040 English springer\n")
    data = load_data(f"folder:{tmp_path}")
    assert data.labels == ("tench, Tinca tinca", "English springer")
    assert match_classes(data.labels, ("goldfish", "English springer", "tench")).columns == (2, 1)


def write_food101(root: Path) -> None:
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "classes.txt").write_text("apple_pie\nwaffles\n")
    for half, first in (("train", 0), ("test", 100)):
        lines = []
        for number in range(10):
            name = f"{('apple_pie', 'waffles')[number % 2]}/{first + number}"
            write_image(root / "images" / f"{name}.jpg", first + number, (16, 12))
            lines.append(name)
        (root / "meta" / f"{half}.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("inside", [".", "food-101"])
def test_food101(tmp_path: Path, inside: str) -> None:
    write_food101(tmp_path / inside)
    data = load_data(f"food101:{tmp_path}")
    assert data.labels == ("apple_pie", "waffles")
    assert sizes(data) == {"train": 9, "calibration": 1, "validation": 1, "test": 10}
    assert values(data.split("test")) == list(range(100, 110))
    assert data.split("test").labels.tolist() == [0, 1] * 5


def test_bad_food101_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"classes\.txt: expected names of classes"):
        load_data(f"food101:{tmp_path}")
    write_food101(tmp_path)
    (tmp_path / "images" / "waffles" / "101.jpg").unlink()
    with pytest.raises(InputError, match=r"test\.txt names images/waffles/101\.jpg, which is not in"):
        load_data(f"food101:{tmp_path}")
    (tmp_path / "meta" / "train.txt").write_text("pizza/1\n")
    with pytest.raises(InputError, match=r"train\.txt: expected CLASS/ID .* got 'pizza/1'"):
        load_data(f"food101:{tmp_path}")
    (tmp_path / "meta" / "train.txt").write_text("\n")
    with pytest.raises(InputError, match=r"train\.txt: .*empty file"):
        load_data(f"food101:{tmp_path}")


SYNSETS = "n02 goldfish, Carassius auratus\nn01 tench, Tinca tinca\nn03 hen\n"


def test_imagenet_by_folders(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"n01": 10, "n02": 10}, ".JPEG")
    write_classes(tmp_path / "val", {"n01": 2, "n02": 1}, ".JPEG", first=100)
    data = load_data(f"imagenet:{tmp_path}")
    assert data.labels == ("n01", "n02")
    assert data.split("test").labels.tolist() == [0, 0, 1]
    (tmp_path / "LOC_synset_mapping.txt").write_text(SYNSETS)
    named = load_data(f"imagenet:{tmp_path}")
    assert named.labels == ("goldfish", "tench", "hen")
    assert named.split("test").labels.tolist() == [0, 1, 1]
    assert values(named.split("test")) == [102, 100, 101]
    assert sizes(named) == {"train": 18, "calibration": 2, "validation": 2, "test": 3}


def test_imagenet_as_kaggle_has_it_with_flat_validation_images(tmp_path: Path) -> None:
    inside = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    (tmp_path / "LOC_synset_mapping.txt").write_text(SYNSETS)
    for number in (1, 2):
        write_image(inside / "val" / f"ILSVRC2012_val_0000000{number}.JPEG", 50 * number)
    rows = [
        "ImageId,PredictionString",
        "ILSVRC2012_val_00000002,n03 1 2 3 4 n03 5 6 7 8 ",
        "ILSVRC2012_val_00000001,n02 1 2 3 4 ",
    ]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(rows))
    data = load_data(f"imagenet:{tmp_path}")
    assert sizes(data) == {"test": 2}
    assert values(data.split("test")) == [100, 50]
    assert data.split("test").labels.tolist() == [2, 0]
    with pytest.raises(InputError, match="unknown split of data 'imagenet' 'calibration'"):
        data.split("calibration")
    (inside / "val" / "ILSVRC2012_val_00000001.JPEG").unlink()
    with pytest.raises(InputError, match="names ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000001"):
        load_data(f"imagenet:{tmp_path}")
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\nx,n99 1 2 3 4")
    with pytest.raises(InputError, match="expected IMAGE,WNID and boxes, got 'x,n99"):
        load_data(f"imagenet:{tmp_path}")
    (tmp_path / "LOC_val_solution.csv").unlink()
    with pytest.raises(InputError, match=r"no folders of classes, and .* no LOC_val_solution\.csv"):
        load_data(f"imagenet:{tmp_path}")


def test_imagenet_without_val(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected train and val, got neither val nor"):
        load_data(f"imagenet:{tmp_path}")


def test_decoding_takes_the_central_square_at_the_models_size(tmp_path: Path) -> None:
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = (10, 20, 30)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    files = ImageFiles(tmp_path, ("a.png",))
    for size in (10, 5, 7):
        decoded = files.decode(size, 3, "bilinear")
        assert decoded.shape == (1, size, size, 3)
        np.testing.assert_array_equal(decoded, np.broadcast_to([10, 20, 30], decoded.shape))
    grey = Preprocessing(image_size=5, mean=(0.0,), std=(1.0,))(files)
    np.testing.assert_allclose(grey, 18 / 255, atol=1e-6)  # ITU-R 601: 0.299 R + 0.587 G + 0.114 B
    assert PLAIN(ImageFiles(tmp_path, ())).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA", "LA", "CMYK"])
def test_every_kind_of_image_becomes_colour(tmp_path: Path, mode: str) -> None:
    name = "a.jpg" if mode == "CMYK" else "a.png"
    Image.new("RGB", (9, 9), (255, 255, 255)).convert(mode).save(tmp_path / name)
    np.testing.assert_array_equal(ImageFiles(tmp_path, (name,)).decode(4, 3, "bicubic"), np.full((1, 4, 4, 3), 255))


@pytest.mark.parametrize(("name", "keep"), [("a.jpg", 0.6), ("a.png", 0.6), ("a.jpg", 0.02), ("a.gif", 0.0), ("a.webp", 0.5)])
def test_truncated_images_are_named(tmp_path: Path, name: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(InputError, match=rf"{name}: expected a complete image file, got: "):
        PLAIN(ImageFiles(tmp_path, (name,)))


def test_missing_images_are_named_when_hashed_and_when_decoded(tmp_path: Path) -> None:
    split = Split(ImageFiles(tmp_path, ("gone.png",)), np.array([0]))
    with pytest.raises(InputError, match=r"cannot read .*gone\.png"):
        split.fingerprint()
    with pytest.raises(InputError, match=r"gone\.png: expected a complete image file"):
        PLAIN(split.images)


def test_fingerprint_depends_on_files_labels_and_size(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", number)
    split = Split(ImageFiles(tmp_path, ("0.png", "1.png")), np.array([0, 1]))
    write_image(tmp_path / "copy.png", 0)
    assert split.fingerprint() == Split(ImageFiles(tmp_path, ("copy.png", "1.png")), np.array([0, 1])).fingerprint()
    others = [
        split.head(1), split.at_size(8), Split(split.images, np.array([0, 0])),
        Split(ImageFiles(tmp_path, ("0.png", "2.png")), np.array([0, 1])),
    ]  # fmt: skip
    assert len({split.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_a_size_in_the_spec(tmp_path: Path) -> None:
    write_classes(tmp_path / "data", {"ant": 10, "bee": 10})
    plain, sized = (load_data(f"folder:{tmp_path / 'data'}{suffix}").split("train") for suffix in ("", "@6"))
    assert sized.pixels().shape == (len(plain), 6, 6, 3)
    assert PLAIN(sized.images).shape == (len(plain), 3, 8, 8)
    with pytest.raises(InputError, match="expected a size to decode the images"):
        plain.pixels()
    (tmp_path / "data").rename(tmp_path / "data@6")
    assert load_data(f"folder:{tmp_path / 'data@6'}").split("train").images.size is None
    with pytest.raises(InputError, match=r"no folder at .*elsewhere for"):
        load_data(f"folder:{tmp_path / 'elsewhere'}@6")
    with pytest.raises(InputError, match="expected no @6: these images are 4 x 4"):
        Split(np.zeros((1, 4, 4, 1), np.uint8), np.array([0])).at_size(6)


def test_files_calibrate_train_and_predict(tmp_path: Path, tiny_model: VisionTransformer) -> None:
    write_classes(tmp_path / "data", {"dark": 12, "light": 12})
    preset = Preset(patch_size=4, dim=16, depth=1, heads=2, train=TrainConfig(epochs=1, batch_size=8))
    result = train_on(load_data(f"folder:{tmp_path / 'data'}@8"), preset, tmp_path / "run", Progress())
    assert 0 <= result.test_top1 <= 1
    files = load_data(f"folder:{tmp_path / 'data'}").split("train").images
    grey = Preprocessing(image_size=8, mean=(0.3,), std=(0.35,))
    assert collect(tiny_model, files, grey).images == len(files)
    assert predict(tiny_model, grey, files).shape == (len(files), 10)
