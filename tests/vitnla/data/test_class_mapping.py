"""Which of a model's classes each class of the data is."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from vitnla.common.errors import InputError
from vitnla.common.notes import note_once
from vitnla.data.class_mapping import SAME, ClassMismatch, match_classes, read_class_map
from vitnla.data.dataset import Dataset, Split
from vitnla.data.load import load_data

ANIMALS = ("Black_Cat", "dog, domestic dog, Canis familiaris", "great white shark", "hen")


@pytest.mark.parametrize(
    ("names", "model", "columns", "said"),
    [
        (ANIMALS, ANIMALS, None, None),
        (("hen", "dog", "black cat", "Great-White Shark"), ANIMALS, (3, 1, 0, 2), "another order"),
        (("black cat", "dog", "great white shark", "hen"), ANIMALS, None, None),
        (("hen", "DOG"), ANIMALS, (3, 1), "2 of the model's 4 classes, .* scored among these 2"),
        (("#3", "#0"), ANIMALS, (3, 0), "2 of the model's 4"),
        (("0", "1", "2", "3"), ANIMALS, None, "data 'data' has numbers for class names: the 4 classes are taken in the order"),
        (ANIMALS, ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3"), None, "the model has numbers for class names"),
        (("0", "1", "2"), ("0", "10", "2"), None, "numbers"),
        (("0", "2", "10"), ("0", "10", "2"), (0, 2, 1), "another order"),
        (ANIMALS, (), None, None),
        (("crane", "hen", "crane"), ("crane, bird", "hen", "crane, machine"), None, None),
    ],
)
def test_classes_are_matched_by_name(
    names: tuple[str, ...], model: tuple[str, ...], columns: tuple[int, ...] | None, said: str | None
) -> None:
    found = match_classes(names, model)
    assert found.columns == columns
    if said is None:
        assert found.note is None
    else:
        assert found.note is not None
        assert re.search(said, found.note)


def test_scored_outputs_are_in_the_order_of_the_data() -> None:
    outputs = np.arange(8).reshape(2, 4)
    assert match_classes(("hen", "dog"), ANIMALS).scored(outputs).tolist() == [[3, 1], [7, 5]]
    assert SAME.scored(outputs) is outputs


@pytest.mark.parametrize(
    ("names", "model", "message", "overlap"),
    [
        (("cat", "dog", "hen"), ANIMALS, "2 of 3 .* has 'cat', 'dog', 'hen'; the model has 'Black_Cat', .*; the model has no 'cat'", True),
        (tuple("abcdefg"), ANIMALS, r"0 of 7 .* has 'a', 'b', 'c', 'd', 'e', \.\.\. \(7\); the model has 'Black_Cat'", False),
        (("0", "1"), ANIMALS, "the model has 4 classes, but data 'data' has 2, and one of the two has numbers", False),
        (("hen", "Hen "), ANIMALS, "got 'hen' and 'Hen ' for 'hen'", True),
        (("crane", "hen"), ("crane, bird", "hen", "crane, machine"), "1 of 2 .*the model has several 'crane'", True),
        (ANIMALS, tuple(f"feature {i}" for i in range(4)), "gives 4 features and no classes", False),
        (("#4", "#0"), ANIMALS, "the model has no '#4'", True),
    ],
)  # fmt: skip
def test_other_classes_are_refused_with_both_lists(
    names: tuple[str, ...], model: tuple[str, ...], message: str, overlap: bool
) -> None:
    with pytest.raises(ClassMismatch, match=message) as error:
        match_classes(names, model)
    assert error.value.overlap is overlap
    assert "--class-map" in error.value.hint or error.value.features


def test_synset_ids_name_the_mapping_file() -> None:
    with pytest.raises(ClassMismatch) as error:
        match_classes(("n01440764", "n02102040"), ("tench, Tinca tinca", "English springer"))
    assert "LOC_synset_mapping.txt" in error.value.hint


@pytest.mark.parametrize(
    "text",
    ["cat\tBlack_Cat\nhound\tdog\n\n", '{"cat": "Black_Cat", "hound": "dog"}'],
)
def test_a_class_map_renames_the_data(text: str, tmp_path: Path) -> None:
    (tmp_path / "map").write_text(text)
    assert read_class_map(tmp_path / "map") == {"cat": "Black_Cat", "hound": "dog"}
    np.savez(tmp_path / "d.npz", images=np.zeros((30, 4, 4), np.uint8), labels=np.arange(30) % 2)
    (tmp_path / "numbers").write_text("1\tdog\n0\tBlack_Cat\n")
    assert load_data(f"npz:{tmp_path / 'd.npz'}", tmp_path / "numbers").labels == ("Black_Cat", "dog")
    with pytest.raises(InputError, match="expected names of the data's classes, such as '0', '1'; got 'cat', 'hound'"):
        load_data(f"npz:{tmp_path / 'd.npz'}", tmp_path / "map")


def test_the_mapping_file_of_imagenet_is_a_class_map(tmp_path: Path) -> None:
    (tmp_path / "map").write_text("n01440764 tench, Tinca tinca\nn02102040 English springer\n")
    assert read_class_map(tmp_path / "map")["n01440764"] == "tench, Tinca tinca"
    (tmp_path / "map").write_text("no tab here\n")
    with pytest.raises(InputError, match="line 1: expected DATA NAME<TAB>MODEL NAME, got 'no tab here'"):
        read_class_map(tmp_path / "map")


def test_a_data_set_for_a_model_says_how_once(caplog: pytest.LogCaptureFixture) -> None:
    note_once.cache_clear()
    data = Dataset("animals", ("hen", "dog"), {"test": Split(np.zeros((2, 4, 4, 1), np.uint8), np.arange(2))})
    with caplog.at_level(logging.WARNING):
        first, second = data.for_model(ANIMALS), data.for_model(ANIMALS)
    assert first.split("test").take(slice(1)).classes.columns == second.split("test").classes.columns == (3, 1)
    assert len(caplog.messages) == 1
    assert "data 'animals' has 2 of the model's 4 classes" in caplog.messages[0]


def test_data_of_other_classes_may_be_accepted_with_the_reason() -> None:
    data = Dataset("things", ("cup", "pen"), {"test": Split(np.zeros((2, 4, 4, 1), np.uint8), np.arange(2))})
    with pytest.raises(ClassMismatch):
        data.for_model(ANIMALS)
    accepted = data.for_model(ANIMALS, required=False).split("test").classes
    assert accepted.unmatched is not None
    assert accepted.unmatched.startswith("0 of 2 classes of data 'things'")
    towers = data.for_model(("feature 0", "feature 1"), required=False).split("test").classes
    assert towers.features
