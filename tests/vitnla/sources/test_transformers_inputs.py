"""What a folder in the transformers format brings with it, and what is refused, shown on DINOv2."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.helpers.hf_models import edit, save_random
from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.common.files import sha256_file
from vitnla.sources.load import load_model
from vitnla.sources.options import SourceOptions
from vitnla.sources.transformers.load import load_hf

KIND = "Dinov2ForImageClassification"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_random(tmp_path, KIND, {"num_labels": 5})
    return tmp_path


def test_what_comes_with_the_weights(folder: Path) -> None:
    edit(folder / "config.json", id2label={str(index): f"class {index}" for index in reversed(range(5))})
    source = load_hf(folder)
    assert source.labels == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert source.preprocessing.model_dump() == {
        "image_size": 12, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bicubic",
        "fit": "squash", "resize_size": None, "crop_rounding": "down",
    }  # fmt: skip
    assert source.sha256 == sha256_file(folder / "model.safetensors")
    assert source.spec == f"hf:{folder}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "swin"}, "unsupported model_type 'swin' .*shifted windows"),
        ({"use_swiglu_ffn": True}, "use_swiglu_ffn"),
        ({"hidden_act": "silu"}, "hidden_act 'silu'"),
        ({"image_size": [12, 16]}, "image_size"),
        ({"id2label": {"0": "one"}}, "5 outputs, but id2label names 1"),
        ({"model_type": "dinov3_vit"}, "rotary"),
        ({"model_type": "convnext"}, "without attention"),
        ({"hidden_size": 20}, "should be"),
        ({"num_hidden_layers": 3}, "encoder.layer.2"),
        ({"num_hidden_layers": 1}, "encoder.layer.1"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers"),
    ],
)
def test_unsupported_or_contradictory_configs_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder / "config.json", **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_hf(folder)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": {"shortest_edge": 12}}, "crop to a square, .* crop to None"),
        ({"do_center_crop": True, "crop_size": {"height": 8, "width": 9}}, "crop to a square"),
        ({"do_center_crop": True, "crop_size": {"height": 16, "width": 16}}, "crop to a square"),
        ({"size": {"height": 12, "width": 16}}, "crop to a square"),
        ({"do_resize": False}, "do_resize False"),
        ({"resample": 1}, "unsupported resample 1"),
        ({"rescale_factor": 1.0}, "unsupported scaling"),
    ],
)
def test_unsupported_preprocessing_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit(folder / "preprocessor_config.json", **changes)
    with pytest.raises(InputError, match=message):
        load_hf(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_missing_and_truncated_files_are_named(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=name):
        load_hf(folder)
    path.unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        load_hf(folder)


def test_missing_settings_are_named(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text("{}")
    with pytest.raises(InputError, match="do_resize"):
        load_hf(folder)


@pytest.mark.parametrize(("change", "message"), [("drop", "classifier.weight"), ("add", "'extra'"), ("nan", "NaN")])
def test_other_weights_are_refused(folder: Path, change: str, message: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    if change == "drop":
        del tensors["classifier.weight"]
    elif change == "add":
        tensors["extra"] = torch.zeros(1)
    else:
        tensors["classifier.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=message):
        load_hf(folder)


def test_weights_in_shards_and_pickled_tensors_are_the_same_model(folder: Path) -> None:
    wanted = load_hf(folder).model.state_dict()
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert all(torch.equal(wanted[name], tensor) for name, tensor in load_hf(folder).model.state_dict().items())

    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert all(torch.equal(wanted[name], tensor) for name, tensor in load_hf(folder).model.state_dict().items())
    assert len(load_hf(folder).sha256) == 64

    index["weight_map"]["classifier.weight"] = "../a.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="names of files beside it"):
        load_hf(folder)


class _Trap:
    def __reduce__(self) -> Any:
        return (print, ("code ran",))


def test_nothing_is_unpickled_but_tensors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"weight": _Trap()}, folder / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(InputError, match="weights_only"):
        load_hf(folder)
    assert capsys.readouterr().out == ""


def test_old_processors_that_name_one_number(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", size=12, crop_size=12, resample=None, do_rescale=None, rescale_factor=None)
    found = load_hf(folder).preprocessing
    assert (found.fit, found.image_size, found.interpolation) == ("shortest", 12, "bicubic")


def test_an_id_is_downloaded_and_being_offline_is_one_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(model_id: str, **options: Any) -> str:
        asked.append(model_id)
        if model_id == "owner/absent":
            raise OSError("no network")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load_hf("owner/model").spec == "hf:owner/model"
    with pytest.raises(InputError, match="cannot be downloaded: no network") as caught:
        load_hf("owner/absent")
    assert "hf:FOLDER" in caught.value.hint
    assert asked == ["owner/model", "owner/absent"]
    with pytest.raises(InputError, match="no such folder"):
        load_hf("/no/such/folder")
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="huggingface_hub"):
        load_hf("owner/model")


@pytest.mark.parametrize("form", ["hf:{}", "{}"])
def test_a_trainers_checkpoint_without_processor_names_the_options(form: str, folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()
    spec = form.format(folder)
    with pytest.raises(InputError, match=r"has no preprocessor_config\.json") as caught:
        load_model(spec)
    assert "--mean and --std" in caught.value.hint
    source = load_model(spec, SourceOptions(mean=(0.5,) * 3, std=(0.5,) * 3))
    assert (source.preprocessing.image_size, source.preprocessing.fit) == (12, "shortest")
    assert any("has no processor: images are resized as is usual for its kind: bicubic" in note for note in source.notes)
    described = folder / "mine.json"
    described.write_text(source.preprocessing.to_json())
    assert load_model(spec, SourceOptions(preprocessing=described)).preprocessing == source.preprocessing


def test_the_processor_of_transformers_5_inside_processor_config(folder: Path) -> None:
    plain = json.loads((folder / "preprocessor_config.json").read_text())
    wanted = load_hf(folder).preprocessing
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))  # of transformers 4
    assert load_hf(folder).preprocessing == wanted
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": plain}))
    assert not any("disagree" in note for note in load_hf(folder).notes)
    edit(folder / "preprocessor_config.json", image_mean=[0.9, 0.9, 0.9])
    source = load_hf(folder)
    assert source.preprocessing == wanted
    assert any("disagree; the former is taken, as transformers does" in note for note in source.notes)
    (folder / "preprocessor_config.json").unlink()
    assert load_hf(folder).preprocessing == wanted
    (folder / "processor_config.json").write_text("[]")
    with pytest.raises(InputError, match="expected a JSON object"):
        load_hf(folder)


def test_sides_written_twice(folder: Path) -> None:
    edit(folder / "config.json", patch_size=[4, 4], image_size=[12, 12])
    assert load_hf(folder).model.config.patch_size == 4
    edit(folder / "config.json", patch_size=[4, 8])
    with pytest.raises(InputError, match=r"patch_size: .*not square are not supported") as caught:
        load_hf(folder)
    assert "damaged" not in caught.value.hint


def test_three_means_for_one_channel(tmp_path: Path) -> None:
    save_random(tmp_path, KIND, {"num_labels": 5, "num_channels": 1}, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})
    with pytest.raises(InputError, match=r"expected 1 value of mean, for a model of 1 channel, got \[0\.5, 0\.5, 0\.5\]"):
        load_hf(tmp_path)
    assert load_hf(tmp_path, SourceOptions(mean=(0.5,), std=(0.5,))).preprocessing.channels == 1


def test_options_of_a_folder(folder: Path) -> None:
    source = load_hf(folder, SourceOptions(image_size=24, std=(1, 1, 1), interpolation="bilinear"))
    assert (source.model.config.image_size, source.preprocessing.image_size) == (24, 24)
    assert (source.preprocessing.std, source.preprocessing.interpolation) == ((1.0, 1.0, 1.0), "bilinear")
    assert any("resampled from 12 to 24 px, as asked" in note for note in source.notes)
    assert source.labels == tuple(f"class {index}" for index in range(5))  # of transformers' LABEL_0 to LABEL_4
    assert any("class names are not known" in note for note in source.notes)
    with pytest.raises(InputError, match="--model-args cannot be applied"):
        load_hf(folder, SourceOptions(model_args={"global_pool": "avg"}))


def test_a_prefix_that_would_have_fitted_is_named(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({f"net.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"which is missing; found .* more") as caught:
        load_hf(folder)
    assert "--weights-key net" in caught.value.hint
    load_hf(folder, SourceOptions(weights_key="net"))
    save_file({f"model.{name}": tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    load_hf(folder)
