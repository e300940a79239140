"""Weights of timm models that were trained otherwise than the name's default, from a file and from the folder that timm writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import Tensor

from tests.helpers.hf_models import edit
from tests.helpers.source_contract import shake
from vitnla.common.errors import InputError
from vitnla.sources.load import load_model
from vitnla.sources.options import NO_OPTIONS, SourceOptions
from vitnla.sources.source_model import SourceModel

NAME = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"embed_dim": 16, "depth": 2, "num_heads": 2}
"""What the fixture makes the name's default of; images of 224 px in patches of 16 stay."""


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    original = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **options: original(name, **(SMALL | options)))


def trained(**settings: Any) -> Any:
    module = timm.create_model(NAME, **({"img_size": 32, "num_classes": 7} | settings)).eval()
    shake(module)
    return module


def saved(folder: Path, **settings: Any) -> tuple[Any, str]:
    """A trained module and the SPEC of its weights."""
    module = trained(**settings)
    save_file(module.state_dict(), folder / "w.safetensors")
    return module, f"timm:{NAME}@{folder / 'w.safetensors'}"


@torch.inference_mode()
def difference(source: SourceModel, module: Callable[[Tensor], Tensor]) -> float:
    config = source.model.config
    images = torch.randn(2, config.channels, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))
    expected = module(images)
    assert float(expected.std()) > 1e-3
    return float((source.model(images) - expected).abs().max() / expected.abs().max())


MANY = {"mean": (0.5,) * 4, "std": (0.5,) * 4}
SHAPES: dict[str, dict[str, Any]] = {
    "image size": {},
    "larger images than the default": {"img_size": 240},
    "patch size": {"patch_size": 8},
    "one channel": {"in_chans": 1},
    "four channels": {"in_chans": 4},
    "registers": {"reg_tokens": 2},
    "registers without positions": {"reg_tokens": 2, "no_embed_class": True, "img_size": 48},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "no class token, norm before pooling": {"class_token": False, "global_pool": "avg", "fc_norm": False},
    "no class token, with registers": {"class_token": False, "global_pool": "avg", "reg_tokens": 4},
    "depth": {"depth": 3},
    "wider MLP": {"mlp_ratio": 1.5},
    "no classes": {"num_classes": 0},
    "a thousand classes": {"num_classes": 1000},
    "layer scale": {"init_values": 0.1},
    "no biases": {"qkv_bias": False, "proj_bias": False},
    "a norm of the embedding": {"pre_norm": True},
    "no positions": {"pos_embed": "none", "img_size": 224},
    "mean pooling by timm's rule": {"global_pool": "avg"},
    "attention pooling": {"global_pool": "map"},
    "attention pooling, no class token": {"global_pool": "map", "class_token": False},
    "no last norm": {"final_norm": False},
}


@pytest.mark.parametrize("case", list(SHAPES))
def test_what_shapes_and_names_say_decides(case: str, tmp_path: Path) -> None:
    module, spec = saved(tmp_path, **SHAPES[case])
    source = load_model(spec)
    assert source.model.config.image_size == SHAPES[case].get("img_size", 32)
    assert difference(source, module) < 1e-4
    if source.model.config.image_size == 32:
        assert any("decides: image size 32 (the name's default is 224)" in note for note in source.notes)
    assert not any("resampled" in note for note in source.notes)


POOLED = {"mean": {"global_pool": "avg", "fc_norm": False}, "class token and fc_norm": {"global_pool": "token", "fc_norm": True}}


@pytest.mark.parametrize("case", list(POOLED))
def test_pooling_that_tensors_do_not_say_is_assumed_aloud_and_can_be_given(case: str, tmp_path: Path) -> None:
    module, spec = saved(tmp_path, **POOLED[case])
    assumed, asked = load_model(spec), load_model(spec, SourceOptions(model_args={"global_pool": POOLED[case]["global_pool"]}))
    assert difference(assumed, module) > 1e-2
    (note,) = (note for note in assumed.notes if "pooling" in note)
    assert f"is assumed: {'the default of the name' if case == 'mean' else 'by timm'}" in note
    assert f"--model-args global_pool={POOLED[case]['global_pool']}" in note
    assert difference(asked, module) < 1e-4
    assert not any("pooling" in note for note in asked.notes)


def test_what_no_tensor_says_can_be_given(tmp_path: Path) -> None:
    module, spec = saved(tmp_path, num_heads=4, act_layer="quick_gelu")
    assert difference(load_model(spec), module) > 1e-3
    assert any("no tensor says it: 2 heads, activation GELU, norm epsilon 1e-06" in note for note in load_model(spec).notes)
    given = load_model(spec, SourceOptions(model_args={"num_heads": 4, "act_layer": "quick_gelu"}))
    assert difference(given, module) < 1e-4
    assert any("no tensor says it: norm epsilon 1e-06" in note for note in given.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_size": 64}, r"img_size=64 was given, but the file has img_size=32"),
        ({"num_classes": 3}, "num_classes=3 was given, but the file has num_classes=7"),
        ({"in_chans": 1}, "in_chans=1 was given, but the file has in_chans=3"),
        ({"fc_norm": True}, "fc_norm=True was given, but the file has fc_norm=False"),
        ({"global_pool": "map"}, "global_pool=map was asked for, but the file has no weights of an attention pool"),
        ({"global_pool": "max"}, "unsupported global_pool 'max'"),
        ({"global_pool": "median"}, "timm does not build"),
        ({"act_layer": "nothing"}, "timm does not build"),
        ({"checkpoint_path": "x"}, "has no argument 'checkpoint_path'"),
    ],
)
def test_arguments_that_contradict_the_file_or_are_unknown(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    _, spec = saved(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_model(spec, SourceOptions(model_args=arguments))
    assert caught.value.hint
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"img_size": (32, 16)}, r"expected a square grid of patches, found 2 positions of patches"),
        (
            {"img_size": (48, 32), "class_token": False, "global_pool": "avg"},
            "expected a square grid of patches, found 6 positions",
        ),
        ({"patch_size": (16, 8)}, "expected square patches, found 16 x 8"),
        ({"embed_dim": 24}, "expected the width of vit_tiny_patch16_224, 16, found 24"),
        ({"qk_norm": True}, "norm of the queries"),
    ],
)
def test_weights_that_are_not_supported_are_refused_in_one_line(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    _, spec = saved(tmp_path, **settings)
    with pytest.raises(InputError, match=message) as caught:
        load_model(spec)
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_distilled_weights_and_a_plain_name_and_the_other_way_round(tmp_path: Path) -> None:
    distilled = timm.create_model("deit_tiny_distilled_patch16_224", img_size=32, num_classes=7).eval()
    shake(distilled)
    save_file(distilled.state_dict(), tmp_path / "d.safetensors")
    source = load_model(f"timm:deit_tiny_distilled_patch16_224@{tmp_path / 'd.safetensors'}")
    assert (source.model.config.image_size, difference(source, distilled) < 1e-4) == (32, True)
    with pytest.raises(InputError, match="found 'dist_token'") as caught:
        load_model(f"timm:{NAME}@{tmp_path / 'd.safetensors'}")
    assert "distilled model" in caught.value.hint
    _, spec = saved(tmp_path)
    with pytest.raises(InputError, match="found no 'dist_token'"):
        load_model(spec.replace(NAME, "deit_tiny_distilled_patch16_224"), SourceOptions(image_size=48))


def test_tensors_that_do_not_fit_are_named_and_never_more_than_five(tmp_path: Path) -> None:
    module, spec = saved(tmp_path)
    tensors = {name: tensor for name, tensor in module.state_dict().items() if ".mlp." not in name}
    save_file(tensors | {"extra.weight": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(
        InputError, match=r"lacks 'blocks\.0\.mlp\.fc1\.weight'.* and 3 more and has 'extra\.weight' besides"
    ) as caught:
        load_model(spec)
    assert caught.value.message.count("blocks.") == 5
    save_file(
        {name: torch.zeros(5, 5) if "mlp.fc2.weight" in name else x for name, x in module.state_dict().items()},
        tmp_path / "w.safetensors",
    )
    with pytest.raises(InputError, match=r"'blocks\.0\.mlp\.fc2\.weight' is \[5, 5\], expected \[16, 64\]"):
        load_model(spec)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "model._orig_mod.module."]
)
def test_prefixes_of_trainers(prefix: str, tmp_path: Path) -> None:
    module = trained()
    torch.save(
        {"state_dict": {f"{prefix}{name}": x for name, x in module.state_dict().items()}, "epoch": 1}, tmp_path / "last.ckpt"
    )
    assert difference(load_model(f"timm:{NAME}@{tmp_path / 'last.ckpt'}"), module) < 1e-4


def test_a_head_beside_the_backbone(tmp_path: Path) -> None:
    module = trained()
    tensors = {name if name.startswith("head.") else f"backbone.{name}": x for name, x in module.state_dict().items()}
    save_file(tensors, tmp_path / "w.safetensors")
    assert difference(load_model(f"timm:{NAME}@{tmp_path / 'w.safetensors'}"), module) < 1e-4


def test_timms_average_is_taken_and_the_last_step_on_request(tmp_path: Path) -> None:
    module, average = trained(), trained(num_classes=7)
    with torch.no_grad():
        average.head.bias.add_(1)
    wrapped = {f"module.{name}": x for name, x in module.state_dict().items()}
    torch.save(
        {"epoch": 3, "arch": NAME, "state_dict": wrapped, "state_dict_ema": average.state_dict()}, tmp_path / "model_best.pth.tar"
    )
    spec = f"timm:{NAME}@{tmp_path / 'model_best.pth.tar'}"
    source = load_model(spec)
    assert difference(source, average) < 1e-4
    assert "took 'state_dict_ema', the average of the weights, as timm does" in source.notes[0]
    last = load_model(spec, SourceOptions(weights_key="state_dict"))
    assert difference(last, module) < 1e-4
    assert last.sha256 != source.sha256


def test_meta_weights_in_dinov2s_own_names(tmp_path: Path) -> None:
    """The official DINOv2 files have a mask token, positions with a class token, and registers by another name."""
    module = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=28, num_classes=0).eval()
    shake(module)
    tensors = dict(module.state_dict())
    tensors["register_tokens"] = tensors.pop("reg_token")
    position = torch.full_like(tensors["cls_token"], 0.25)
    tensors["cls_token"] = tensors["cls_token"] - position
    tensors["pos_embed"] = torch.cat([position, tensors["pos_embed"]], dim=1)
    tensors["mask_token"] = torch.zeros(1, 16)
    torch.save(tensors, tmp_path / "dinov2.pth")
    source = load_model(f"timm:vit_small_patch14_reg4_dinov2@{tmp_path / 'dinov2.pth'}")
    assert source.model.config.image_size == 28
    assert difference(source, module) < 1e-4


def test_the_options_of_a_file(tmp_path: Path) -> None:
    _, spec = saved(tmp_path)
    (tmp_path / "names.txt").write_text("\n".join(f"name {index}" for index in range(7)))
    options = SourceOptions(
        image_size=48, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bilinear", labels=tmp_path / "names.txt"
    )
    source = load_model(spec, options)
    assert source.model.config.image_size == 48
    assert source.preprocessing.model_dump() == {
        "image_size": 48, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "fit": "shortest",
        "resize_size": 53, "crop_rounding": "even",
    }  # fmt: skip
    assert source.labels[6] == "name 6"
    assert not any("class names" in note for note in source.notes)
    assert source.options == options
    assert SourceOptions.model_validate_json(options.to_json()) == options


def test_the_names_of_a_thousand_own_classes_are_not_imagenets(tmp_path: Path) -> None:
    _, spec = saved(tmp_path, num_classes=1000)
    source = load_model(spec)
    assert source.labels[0] == "class 0"
    assert any("class names are not known: 'class 0' to 'class 999'" in note for note in source.notes)


def test_one_channel_and_the_means_of_three(tmp_path: Path) -> None:
    _, spec = saved(tmp_path, in_chans=1)
    source = load_model(spec)  # the default's three means are alike
    assert source.preprocessing.mean == (0.5,)
    assert any("mean 0.5 is taken for 1 channel" in note for note in source.notes)
    deit = spec.replace(NAME, "deit_tiny_patch16_224")  # its are not
    with pytest.raises(
        InputError, match=r"expected 1 value of mean, for a model of 1 channel, got \[0\.485, 0\.456, 0\.406\]"
    ) as caught:
        load_model(deit)
    assert "--mean and --std with 1 number each" in caught.value.hint
    assert load_model(deit, SourceOptions(mean=(0.4,), std=(0.2,))).preprocessing.std == (0.2,)


def test_a_classifier_for_timms_own_weights_would_be_random() -> None:
    with pytest.raises(InputError, match="random classifier"):
        load_model(f"timm:{NAME}", SourceOptions(model_args={"num_classes": 3}))
    with pytest.raises(InputError, match="--weights-key cannot be applied"):
        load_model(f"timm:{NAME}@random", SourceOptions(weights_key="model"))


NAMES = [f"label {index}" for index in range(7)]


@pytest.fixture
def hub(tmp_path: Path) -> tuple[Any, Path]:
    """A fine-tune with mean pooling, its own images, and class names, as timm saves it."""
    module = trained(global_pool="avg", fc_norm=False, num_heads=4)
    config = {"label_names": NAMES}
    arguments = {"global_pool": "avg", "fc_norm": False, "num_heads": 4}
    save_for_hf(module, str(tmp_path / "hub"), model_config=config, model_args=arguments, safe_serialization=True)
    settings = json.loads((tmp_path / "hub" / "config.json").read_text())["pretrained_cfg"]
    edit(
        tmp_path / "hub" / "config.json",
        pretrained_cfg=settings | {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.5, "interpolation": "bilinear"},
    )
    return module, tmp_path / "hub"


@pytest.mark.parametrize("form", ["timm:{}", "hf:{}", "{}"])
def test_the_folder_that_timm_writes_says_it_all(form: str, hub: tuple[Any, Path]) -> None:
    module, folder = hub
    source = load_model(form.format(folder))
    assert difference(source, module) < 1e-4
    assert source.labels == tuple(NAMES)
    assert (source.preprocessing.mean, source.preprocessing.interpolation) == ((0.1, 0.2, 0.3), "bilinear")
    assert (source.preprocessing.image_size, source.preprocessing.resize_size) == (32, 64)
    assert source.spec == form.format(folder)
    assert source.notes == ()


def test_where_the_folder_contradicts_its_weights_or_itself(hub: tuple[Any, Path]) -> None:
    module, folder = hub
    arguments = json.loads((folder / "config.json").read_text())["model_args"]
    edit(folder / "config.json", model_args=arguments | {"img_size": 64, "in_chans": 1, "num_classes": 9}, crop_pct=1.0)
    source = load_model(f"timm:{folder}")
    assert difference(source, module) < 1e-4
    text = "\n".join(source.notes)
    for words in (
        "img_size=64, the weights 32",
        "in_chans=1, the weights 3",
        "num_classes=9, the weights 7",
        "crop_pct is 1.0 outside of pretrained_cfg and 0.5",
    ):
        assert words in text
    given = load_model(f"timm:{folder}", SourceOptions(model_args={"global_pool": "token"}, mean=(0.5,) * 3))
    assert given.model.config.pooling == "cls"
    assert any("config.json says global_pool=avg, --model-args token" in note for note in given.notes)
    assert given.preprocessing.mean == (0.5,) * 3


def test_an_older_folder_without_arguments_and_names(hub: tuple[Any, Path]) -> None:
    module, folder = hub
    edit(folder / "config.json", model_args=None, label_names=None)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    source = load_model(f"timm:{folder}", SourceOptions(model_args={"num_heads": 4}))
    assert difference(source, module) < 1e-4  # global_pool stands beside the arguments too
    assert source.labels[0] == "class 0"
    edit(folder / "config.json", label_names={str(index): name for index, name in enumerate(NAMES)})
    assert load_model(str(folder)).labels == tuple(NAMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_names": NAMES[:6]}, "expected 7 class names, one for each output, got 6"),
        ({"label_names": {"1": "one"}}, "expected a list, or keys 0 to 0"),
        ({"architecture": "vit_unheard_of"}, "has no model 'vit_unheard_of'"),
        ({"model_args": {"unheard_of": 3}}, "has no argument 'unheard_of'"),
    ],
)
def test_damaged_folders(changes: dict[str, Any], message: str, hub: tuple[Any, Path]) -> None:
    edit(hub[1] / "config.json", **changes)
    with pytest.raises(InputError, match=message) as caught:
        load_model(f"timm:{hub[1]}")
    assert caught.value.hint


def test_a_folder_without_weights(hub: tuple[Any, Path]) -> None:
    (hub[1] / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no model\.safetensors"):
        load_model(str(hub[1]), NO_OPTIONS)
