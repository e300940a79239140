"""The models that docs/models.md names, at full size, and the example of docs/api.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from export import export_bundle
from vitnla import AutoConfig, Dataset, Split, decompose, load_data, load_model
from vitnla.sources.conversion import canonical, require_same_logits
from vitnla.sources.tensors import SourceTensors
from vitnla.sources.transformers.load import FAMILIES

DOCS = Path(__file__).parents[3] / "docs"
NAMED = [
    (library, name)
    for library, names in re.findall(r"^\| (timm|torchvision|hf) \| (`.*) \|$", (DOCS / "models.md").read_text(), re.MULTILINE)
    for name in re.findall(r"`([\w.]+)`", names)
]


def test_the_table_is_as_long_as_promised() -> None:
    assert len(NAMED) == len(set(NAMED)) >= 24
    assert {library for library, _ in NAMED} == {"timm", "torchvision", "hf"}


def test_the_exported_ones_are_those_of_the_results() -> None:
    rows = [json.loads(line) for line in (DOCS.parent / "results" / "models.jsonl").read_text().splitlines()]
    exported = {row["model"].removesuffix("@random"): row for row in rows if row["error"] is None}
    table = (DOCS / "models.md").read_text().partition("## Exported by `auto`")[2]
    documented = set(re.findall(r"^\| `(\w+:[\w.]+)` \|", table, re.MULTILINE))
    assert documented == set(exported)
    assert len(documented) >= 24
    assert documented <= {f"{library}:{name}" for library, name in NAMED}
    assert {name.partition(":")[0] for name in documented} == {"timm", "torchvision", "hf"}
    assert max(row["parity"] for row in exported.values()) <= 1e-4
    assert all(0.5 <= row["macs"] <= 0.6 for row in exported.values())


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name"), [row for row in NAMED if row[0] != "hf"])
def test_named_models_convert(library: str, name: str) -> None:
    """The conversion itself compares logits with the library's module, or raises."""
    source = load_model(f"{library}:{name}@random")
    assert len(source.labels) == source.model.config.classes


@pytest.mark.slow
@pytest.mark.parametrize("kind", [name for library, name in NAMED if library == "hf"])
def test_classes_of_transformers_convert_at_full_size(kind: str, tmp_path: Path) -> None:
    model_class = getattr(transformers, kind)
    config = model_class.config_class()
    model = model_class(config).eval()
    model.save_pretrained(tmp_path)
    from safetensors.torch import load_file

    source = SourceTensors(load_file(tmp_path / "model.safetensors"), kind, kind)
    converted = FAMILIES[config.model_type].convert(tmp_path / "config.json", source, config.image_size, kind)

    class Answers(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> Any:
            out = model(images)
            return next(out[name] for name in ("logits", "image_embeds", "pooler_output") if out.get(name) is not None)

    ours = canonical(converted, kind)
    require_same_logits(ours, Answers(), [], kind)


def random_data(size: int, classes: int) -> Dataset:
    generator = np.random.default_rng(0)
    splits = {
        name: Split(generator.integers(0, 256, (count, size, size, 3), np.uint8), generator.integers(0, classes, count, np.int64))
        for name, count in {"calibration": 4, "test": 8}.items()
    }
    return Dataset("random", tuple(map(str, range(classes))), splits)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "vit_xsmall_patch16_clip_224"])
def test_named_models_export_by_auto(name: str, tmp_path: Path) -> None:
    source = load_model(f"timm:{name}@random")
    data = random_data(source.preprocessing.image_size, source.model.config.classes)
    bundle = export_bundle(decompose(source, AutoConfig(), data), tmp_path / "bundle")
    assert bundle.manifest.parity.met
    assert bundle.manifest.macs.ratio < 1


def test_the_example_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    demo = load_data("demo")
    few = Dataset(demo.name, demo.labels, {name: split.head(100) for name, split in demo.splits.items()})
    for module in ("vitnla.decomposition", "vitnla.data.load"):  # the demo's 10,000 test images would take minutes
        monkeypatch.setattr(f"{module}.load_data", lambda spec: few)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "api.md").read_text(), re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/api.md", "exec"), {})
    parity, ratio = map(float, capsys.readouterr().out.split())
    assert parity < 1e-4
    assert ratio < 0.61
    assert (tmp_path / "artifacts/demo-svd-0.6/model.onnx").is_file()
    assert (tmp_path / "artifacts/my-vit/model.onnx").is_file()
