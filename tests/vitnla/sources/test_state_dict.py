"""Checkpoints as trainers write them: which weights are taken, under which names, and what is said."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from vitnla.common.errors import InputError
from vitnla.sources.state_dict import choose_state_dict, fitting_prefix, shown, without_prefix
from vitnla.sources.weights import read_weights, weights_sha256

LAST = {"a.weight": torch.zeros(2), "b.weight": torch.zeros(3)}
MEAN = {name: tensor + 1 for name, tensor in LAST.items()}


def prefixed(prefix: str, tensors: dict[str, torch.Tensor] = LAST) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "loaded",
    [
        LAST,
        {"epoch": 3, "state_dict": LAST},
        {"model": prefixed("module.")},
        {"model": {"state_dict": prefixed("_orig_mod.module.")}},
        {"state_dict": prefixed("module._orig_mod."), "optimizer": {"state": {}}},
        {"state_dict": LAST, "state_dict_ema": None},
        {"n_averaged": torch.tensor(3), **prefixed("module.")},
        {"model_state_dict": LAST, "lr": 0.1},
        {"module": prefixed("module.")},
    ],
)
def test_the_weights_of_the_last_step_are_found(loaded: Any) -> None:
    found = choose_state_dict(loaded, "file")
    assert found.notes == ()
    assert list(found.tensors) == list(LAST)
    assert all(torch.equal(found.tensors[name], LAST[name]) for name in LAST)


@pytest.mark.parametrize(
    ("loaded", "taken", "other"),
    [
        ({"state_dict": LAST, "state_dict_ema": MEAN}, "state_dict_ema", "state_dict"),
        ({"model": LAST, "model_ema": MEAN}, "model_ema", "model"),
        ({"model": LAST, "ema": {"decay": 0.9, "module": MEAN}}, "ema.module", "model"),
        ({"student": prefixed("module."), "teacher": MEAN}, "teacher", "student"),
    ],
)
def test_the_average_goes_first_and_is_said_and_the_other_can_be_chosen(loaded: Any, taken: str, other: str) -> None:
    found = choose_state_dict(loaded, "file")
    assert torch.equal(found.tensors["a.weight"], MEAN["a.weight"])
    (note,) = found.notes
    assert f"took '{taken}'" in note
    assert f"--weights-key {other}" in note
    for key, wanted in ((other, LAST), (taken, MEAN)):
        chosen = choose_state_dict(loaded, "file", key)
        assert chosen.notes == ()
        assert torch.equal(chosen.tensors["a.weight"], wanted["a.weight"])


@pytest.mark.parametrize(
    ("loaded", "key", "message", "hint"),
    [
        (
            {"state_dict": LAST, "epoch": 1},
            "ema",
            "expected weights under 'ema', found a mapping with 'state_dict', 'epoch'",
            "state_dict",
        ),
        (
            {"mine": LAST, "epoch": 1},
            None,
            "expected a state_dict of tensors, found a mapping with 'mine', 'epoch'",
            "--weights-key mine",
        ),
        ({"state_dict": {f"{index}": index for index in range(9)}}, None, "found a mapping with 'state_dict'", "--weights-key"),
        ({f"entry{index}": 0 for index in range(9)}, None, "'entry4' and 4 more", "KEY"),
        ([LAST], None, "found a list", "state_dict"),
        (LAST, "model", "expected weights under 'model', found a mapping with 'a.weight'", "--weights-key"),
    ],
)
def test_what_is_no_state_dict_is_refused(loaded: Any, key: str | None, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        choose_state_dict(loaded, "file", key)
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "model._orig_mod.", "net.encoder."])
def test_the_prefix_of_a_trainers_module_is_taken_away(prefix: str) -> None:
    tensors = prefixed(prefix) | {"criterion.weight": torch.zeros(1)}
    found = without_prefix(tensors, ["a.weight"], "file")
    assert list(found.tensors) == list(LAST)
    (note,) = found.notes
    assert f"'{prefix}', left out 'criterion.weight'" in note


def test_a_head_beside_the_backbone_is_kept() -> None:
    found = without_prefix(prefixed("backbone.") | {"head.weight": torch.ones(1)}, ["a.weight"], "file", keep=("head.weight",))
    assert list(found.tensors) == [*LAST, "head.weight"]
    assert "left out" not in found.notes[0]


def test_several_models_in_one_file() -> None:
    tensors = prefixed("model.") | prefixed("ema_model.", MEAN)
    assert torch.equal(without_prefix(tensors, ["a.weight"], "file").tensors["a.weight"], MEAN["a.weight"])
    assert torch.equal(without_prefix(tensors, ["a.weight"], "file", "model").tensors["a.weight"], LAST["a.weight"])
    with pytest.raises(InputError, match=r"found several, under 'one\.', 'two\.'") as caught:
        without_prefix(prefixed("one.") | prefixed("two."), ["a.weight"], "file")
    assert "--weights-key one" in caught.value.hint


def test_names_that_are_the_models_own_stay() -> None:
    assert without_prefix(LAST, ["a.weight"], "file") == without_prefix(LAST, ["absent"], "file")
    assert without_prefix(LAST, ["a.weight"], "file").notes == ()


def test_a_prefix_that_would_have_fitted_is_named() -> None:
    expected = ["a.weight", "b.weight"]
    assert fitting_prefix(expected, prefixed("x.y.")) == "x.y."
    assert fitting_prefix(expected, LAST) is None
    assert fitting_prefix(expected, {"x.a.weight": 0, "c": 0}) is None
    assert fitting_prefix([], LAST) is None


def test_never_more_than_five_names() -> None:
    assert shown("abc") == "'a', 'b', 'c'"
    assert shown([f"n{index}" for index in range(1200)]) == "'n0', 'n1', 'n2', 'n3', 'n4' and 1,195 more"


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w.ckpt", "w.pth.tar"])
def test_kinds_of_files(name: str, tmp_path: Path) -> None:
    torch.save({"state_dict": LAST, "args": argparse.Namespace(lr=0.1), "metric": 1.5}, tmp_path / name)
    assert list(read_weights(tmp_path / name).tensors) == list(LAST)


class Custom:
    pass


def test_classes_that_are_not_read_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": LAST, "config": Custom()}, tmp_path / "w.ckpt")
    with pytest.raises(InputError, match=r"weights_only=True: it holds '.*Custom'"):
        read_weights(tmp_path / "w.ckpt")


@pytest.mark.parametrize("name", ["w.tar", "w.npz", "w"])
def test_other_suffixes_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown kind of weights file") as caught:
        read_weights(tmp_path / name)
    assert ".pth.tar" in caught.value.hint


def test_weights_that_were_chosen_have_a_hash_of_their_own(tmp_path: Path) -> None:
    save_file(LAST, tmp_path / "w.safetensors")
    hashes = {weights_sha256(tmp_path / "w.safetensors", key) for key in (None, "model", "model_ema")}
    assert len(hashes) == 3
    assert {len(text) for text in hashes} == {64}
