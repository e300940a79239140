"""What the user says of a source: how it is read, what it goes before, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.model import VisionTransformer, save_checkpoint
from vitnla.sources.description import Origin, write_description
from vitnla.sources.load import load_dense, load_model
from vitnla.sources.options import SourceOptions, choose_labels, choose_preprocessing, parse_model_args


def test_arguments_are_typed() -> None:
    words = ["global_pool=avg, fc-norm=false", "num_heads=3", "init_values=1e-5", "act_layer=none", "pre_norm=True"]
    assert parse_model_args(words) == {
        "global_pool": "avg", "fc_norm": False, "num_heads": 3, "init_values": 1e-5, "act_layer": None, "pre_norm": True,
    }  # fmt: skip
    assert parse_model_args([]) == {}
    options = SourceOptions(model_args=parse_model_args(words))
    assert SourceOptions.model_validate_json(options.to_json()) == options


@pytest.mark.parametrize("words", [["avg"], ["=avg"], ["global_pool="], ["a=1,,b=2"], ["a=1", "a=2"]])
def test_arguments_that_are_none(words: list[str]) -> None:
    with pytest.raises(InputError, match="--model-args"):
        parse_model_args(words)


FOUND: dict[str, Any] = {"image_size": 8, "mean": (0.5,), "std": (0.2,), "fit": "squash", "resize_size": 10}


def chosen(found: dict[str, Any], size: int = 8, channels: int = 1, **options: Any) -> Preprocessing:
    return choose_preprocessing(found, SourceOptions(**options), image_size=size, channels=channels, origin="x")


def test_options_go_before_the_source() -> None:
    assert chosen(FOUND) == Preprocessing.model_validate(FOUND)
    assert chosen(FOUND, mean=(0.1,)).mean == (0.1,)
    assert chosen(FOUND, interpolation="nearest").interpolation == "nearest"
    assert (chosen(FOUND, 16).image_size, chosen(FOUND, 16).resize_size) == (16, 20)


@pytest.mark.parametrize(
    ("found", "settings", "message"),
    [
        (FOUND, {"channels": 3}, "expected 3 values of mean, for a model of 3 channels"),
        (FOUND, {"std": (0.0,)}, "1 value of std that are not 0"),
        (FOUND, {"interpolation": "area"}, "interpolation"),
        ({"image_size": 8, "mean": (0.5,)}, {}, "does not say how its images are normalised: no std"),
    ],
)
def test_preprocessing_that_does_not_fit(found: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        chosen(found, **settings)
    assert "--mean" in caught.value.hint


def test_a_preprocessing_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(chosen(FOUND).to_json())
    assert chosen({}, preprocessing=path) == chosen(FOUND)
    with pytest.raises(InputError, match="got both"):
        chosen({}, preprocessing=path, mean=(0.1,))
    with pytest.raises(InputError, match="makes images of 8 px, x takes 16 px") as caught:
        chosen({}, 16, preprocessing=path)
    assert "--image-size 8" in caught.value.hint


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("a\nb\n")
    assert choose_labels(("x", "y"), SourceOptions(labels=path), 2, "origin") == (("a", "b"), ())
    assert choose_labels(("x", "y"), SourceOptions(), 2, "origin") == (("x", "y"), ())
    names, notes = choose_labels(None, SourceOptions(), 2, "origin")
    assert names == ("class 0", "class 1")
    assert "class names are not known" in notes[0]
    with pytest.raises(InputError, match="expected 3 class names"):
        choose_labels(("x", "y"), SourceOptions(), 3, "origin")


@pytest.fixture
def checkpoint(tiny_model: VisionTransformer, tmp_path: Path) -> Path:
    save_checkpoint(tiny_model, tmp_path / "c")
    write_description(tmp_path / "c", Preprocessing(image_size=8, mean=(0.3,), std=(0.35,)), tuple("abcdefghij"))
    return tmp_path / "c"


def test_options_of_a_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join("klmnopqrst"))
    source = load_model(str(checkpoint), SourceOptions(image_size=16, mean=(0.5,), labels=names))
    assert source.model.config.image_size == 16
    assert source.model(torch.zeros(1, 1, 16, 16)).shape == (1, 10)
    assert (source.preprocessing.image_size, source.preprocessing.mean, source.labels[0]) == (16, (0.5,), "k")
    assert source.notes == ("positions are resampled from 8 to 16 px, as asked",)
    with pytest.raises(InputError, match="at least one patch, 4 px, got 2"):
        load_model(str(checkpoint), SourceOptions(image_size=2))
    with pytest.raises(InputError, match="--model-args cannot be applied"):
        load_model(str(checkpoint), SourceOptions(model_args={"global_pool": "avg"}))


def test_the_dense_model_of_a_decomposed_one_is_loaded_with_its_options(checkpoint: Path) -> None:
    options = SourceOptions(image_size=16)
    dense = load_model(str(checkpoint), options)
    origin = Origin(source=dense.spec, source_sha256=dense.sha256, options=options, method="svd", method_config={}, layers=())
    assert load_dense(Origin.model_validate_json(origin.to_json())).model.config.image_size == 16
    description = dense.preprocessing.model_copy(update={"image_size": 8})
    write_description(checkpoint, description, dense.labels, origin)
    with pytest.raises(InputError, match="was decomposed"):
        load_model(str(checkpoint), options)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(InputError, match="is a file, not a model") as caught:
        load_model(str(tmp_path / "w.pth"))
    assert "timm:vit_small_patch16_224@" in caught.value.hint
