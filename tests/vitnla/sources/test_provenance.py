"""Every row of the table "Where each value comes from" in docs/models.md: what a value is read from, and what goes before what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
from safetensors.torch import save_file
from timm.models import save_for_hf

from tests.helpers.hf_models import edit, save_random
from tests.helpers.source_contract import shake
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.model import ViTConfig, load_checkpoint, save_checkpoint
from vitnla.sources.description import write_description
from vitnla.sources.load import load_model
from vitnla.sources.options import SourceOptions
from vitnla.sources.source_model import SourceModel

DOCS = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
TABLE = DOCS.partition("## Where each value comes from")[2].partition("\n## ")[0]
ROWS = [tuple(re.findall(r"`(\w+)`", line.split("|")[1])) for line in TABLE.splitlines() if line.startswith("| `")]
NAME = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
SOURCES = ("file", "folder", "hf", "checkpoint")


class Given:
    """One trained model of 32 px as each kind of source, in folders that a test may spoil."""

    def __init__(self, root: Path) -> None:
        module = timm.create_model(NAME, img_size=32, num_classes=5).eval()
        shake(module)
        save_file(module.state_dict(), root / "w.safetensors")
        labels = {"label_names": [f"label {index}" for index in range(5)]}
        save_for_hf(module, str(root / "folder"), model_config=labels, model_args={}, safe_serialization=True)
        save_random(root / "hf", "ViTForImageClassification", {"num_labels": 5, "id2label": dict(enumerate("abcde"))})
        source = load_model(f"hf:{root / 'hf'}")
        save_checkpoint(source.model, root / "checkpoint")
        write_description(root / "checkpoint", source.preprocessing, source.labels)
        self.specs = {"file": f"timm:{NAME}@{root / 'w.safetensors'}"} | {name: str(root / name) for name in SOURCES[1:]}
        self.root = root

    def load(self, kind: str, **options: Any) -> SourceModel:
        return load_model(self.specs[kind], SourceOptions(**options))

    def refused(self, kind: str, message: str, **options: Any) -> None:
        with pytest.raises(InputError, match=message) as caught:
            self.load(kind, **options)
        assert caught.value.hint
        assert "\n" not in caught.value.message

    def config(self, kind: str, part: str | None = None, **changes: Any) -> None:
        """Change settings of a folder's config.json, or of a part of it."""
        path = self.root / kind / "config.json"
        if part is not None:
            changes = {part: json.loads(path.read_text())[part] | changes}
        edit(path, **changes)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: original(name, **(SMALL | options)))
    return Given(tmp_path)


def said(source: SourceModel, words: str) -> bool:
    return any(words in note for note in source.notes)


def image_size(given: Given) -> None:
    assert [given.load(kind).model.config.image_size for kind in SOURCES] == [32, 32, 12, 12]
    given.config("folder", "model_args", img_size=64)
    assert said(given.load("folder"), "img_size=64, the weights 32")
    edit(given.root / "hf" / "preprocessor_config.json", size={"height": 16, "width": 16})
    assert said(given.load("hf"), "resampled from 12 to 16 px, the size of the processor")
    described = given.root / "p.json"
    described.write_text(Preprocessing(image_size=48, mean=(0.5,) * 3, std=(0.5,) * 3).to_json())
    for kind in SOURCES:
        asked = given.load(kind, image_size=48)
        assert (asked.model.config.image_size, asked.preprocessing.image_size) == (48, 48)
        assert said(asked, "to 48 px, as asked")
        given.refused(kind, "makes images of 48 px", preprocessing=described)


def patch_size_and_channels(given: Given) -> None:
    assert [given.load(kind).model.config.patch_size for kind in SOURCES] == [16, 16, 4, 4]
    given.config("folder", "model_args", patch_size=8, in_chans=1)
    source = given.load("folder")
    assert said(source, "patch_size=8, the weights 16")
    assert source.model.config.channels == 3
    given.refused("file", "patch_size=8 was given, but the file has patch_size=16", model_args={"patch_size": 8})
    for kind, field in (("hf", "num_channels"), ("checkpoint", "channels")):
        given.config(kind, **{field: 1})
        given.refused(kind, "should be|makes 3 x")


def dim_and_blocks(given: Given) -> None:
    assert [len(given.load(kind).model.config.blocks) for kind in SOURCES] == [2] * 4
    assert said(given.load("file"), "no tensor says it: 2 heads")
    given.config("folder", "model_args", depth=5, num_heads=4)
    source = given.load("folder")
    assert (len(source.model.config.blocks), source.model.config.blocks[0].heads) == (2, 4)
    assert said(source, "depth=5, the weights 2")
    assert given.load("folder", model_args={"num_heads": 1}).model.config.blocks[0].heads == 1
    given.refused("file", "embed_dim=8 was given, but the file has embed_dim=16", model_args={"embed_dim": 8})
    given.config("hf", num_hidden_layers=3)
    given.refused("hf", "encoder.layer.2")


def classes(given: Given) -> None:
    assert [given.load(kind).model.config.classes for kind in SOURCES] == [5] * 4
    given.config("folder", "model_args", num_classes=9)
    assert said(given.load("folder"), "num_classes=9, the weights 5")
    given.config("hf", id2label={"0": "one"})
    given.refused("hf", "5 outputs, but id2label names 1")


def optional_parts(given: Given) -> None:
    assert [given.load(kind).model.config.class_token for kind in SOURCES] == [True] * 4
    given.config("folder", "model_args", class_token=False, reg_tokens=4, init_values=0.1, pre_norm=True)
    config = given.load("folder").model.config
    assert (config.class_token, config.registers, config.layer_scale, config.embed_norm) == (True, 0, False, False)
    given.config("checkpoint", registers=1)
    given.refused("checkpoint", "should be")


def position(given: Given) -> None:
    assert [given.load(kind).model.config.position.kind for kind in SOURCES] == ["learned"] * 4
    given.config("hf", model_type="dinov3_vit", architectures=["DINOv3ViTForImageClassification"])
    given.refused("hf", "rotary positions")
    given.config("checkpoint", position="rotary")
    given.refused("checkpoint", "rotary")


def pooling(given: Given) -> None:
    assert [given.load(kind).model.config.pooling for kind in SOURCES] == ["cls"] * 4
    assert said(given.load("file"), "pooling by the class token is assumed")
    assert given.load("file", model_args={"global_pool": "avg"}).model.config.pooling == "mean"
    given.config("folder", "model_args", global_pool="avg")
    assert (given.load("folder").model.config.pooling, given.load("folder").notes) == ("mean", ())
    source = given.load("folder", model_args={"global_pool": "token"})
    assert source.model.config.pooling == "cls"
    assert said(source, "global_pool=avg, --model-args token")
    given.refused("file", "no weights of an attention pool", model_args={"global_pool": "map"})


def activation_and_epsilon(given: Given) -> None:
    assert [given.load(kind).model.config.activation for kind in SOURCES] == ["gelu"] * 4
    assert said(given.load("file"), "activation GELU, norm epsilon 1e-06")
    given.config("folder", "model_args", act_layer="relu")
    assert given.load("folder").model.config.activation == "relu"
    assert given.load("folder", model_args={"act_layer": "quick_gelu"}).model.config.activation == "quick_gelu"
    given.config("hf", hidden_act="quick_gelu", layer_norm_eps=1e-3)
    assert (given.load("hf").model.config.activation, given.load("hf").model.config.norm_eps) == ("quick_gelu", 1e-3)


def remainder(given: Given) -> None:
    for kind in SOURCES:
        assert not given.load(kind).model.config.ignore_remainder
        assert given.load(kind, image_size=50).model.config.ignore_remainder


def mean_and_std(given: Given) -> None:
    assert given.load("hf").preprocessing.mean == given.load("checkpoint").preprocessing.mean == (0.1, 0.2, 0.3)
    assert said(given.load("file"), "mean 0.5/0.5/0.5, std 0.5/0.5/0.5")
    given.config("folder", "pretrained_cfg", mean=[0.2, 0.3, 0.4])
    assert given.load("folder").preprocessing.mean == (0.2, 0.3, 0.4)
    for kind in SOURCES:
        assert given.load(kind, mean=(0.7, 0.8, 0.9)).preprocessing.mean == (0.7, 0.8, 0.9)
        given.refused(kind, "expected 3 values of std", std=(0.5,))


def interpolation_and_crop(given: Given) -> None:
    assert said(given.load("file"), "bicubic, resize to 35, crop to 32")
    given.config("folder", "pretrained_cfg", interpolation="bilinear", crop_pct=0.5)
    given.config("folder", crop_pct=1.0)
    source = given.load("folder")
    assert (source.preprocessing.interpolation, source.preprocessing.resize_size) == ("bilinear", 64)
    assert said(source, "crop_pct is 1.0 outside of pretrained_cfg and 0.5 in it")
    for kind in SOURCES:
        assert given.load(kind, interpolation="nearest").preprocessing.interpolation == "nearest"
    inside = json.loads((given.root / "hf" / "preprocessor_config.json").read_text()) | {"resample": 2}
    (given.root / "hf" / "processor_config.json").write_text(json.dumps({"image_processor": inside}))
    assert given.load("hf").preprocessing.interpolation == "bilinear"
    assert said(given.load("hf"), "disagree")


def labels(given: Given) -> None:
    assert [given.load(kind).labels[1] for kind in SOURCES] == ["class 1", "label 1", "b", "b"]
    assert said(given.load("file"), "class names are not known")
    names, few = given.root / "names.txt", given.root / "few.txt"
    names.write_text("\n".join("vwxyz"))
    few.write_text("v\nw")
    for kind in SOURCES:
        assert given.load(kind, labels=names).labels == tuple("vwxyz")
        given.refused(kind, "expected 5 class names", labels=few)
    given.config("hf", id2label={str(index): f"LABEL_{index}" for index in range(5)})
    assert given.load("hf").labels[1] == "class 1"


CASES: dict[tuple[str, ...], Callable[[Given], None]] = {
    ("image_size",): image_size,
    ("patch_size", "channels"): patch_size_and_channels,
    ("dim", "blocks"): dim_and_blocks,
    ("classes",): classes,
    ("class_token", "registers", "embed_norm", "layer_scale"): optional_parts,
    ("position",): position,
    ("pooling", "final_norm", "attention_pool", "head_hidden"): pooling,
    ("activation", "norm", "norm_eps"): activation_and_epsilon,
    ("ignore_remainder",): remainder,
    ("mean", "std"): mean_and_std,
    ("interpolation", "fit", "resize_size", "crop_rounding"): interpolation_and_crop,
    ("labels",): labels,
}


@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_a_row_of_the_table(row: tuple[str, ...], given: Given) -> None:
    CASES[row](given)


def test_the_table_has_every_field_and_every_row_is_tested() -> None:
    fields = [field for row in ROWS for field in row]
    assert len(fields) == len(set(fields))
    assert set(fields) == {*ViTConfig.model_fields, *Preprocessing.model_fields, "labels"}
    assert set(ROWS) == set(CASES)


def test_the_checkpoint_is_what_it_was(given: Given) -> None:
    assert load_checkpoint(given.root / "checkpoint").config == given.load("checkpoint").model.config
