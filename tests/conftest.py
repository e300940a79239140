"""Small models and data that many tests share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import export.bundle.from_model
from export.graph.preprocessing import Embedding
from runtime.bundle.schema import Bundle
from tests.helpers import fake_runners as fakes
from tests.helpers.exports import export_decomposition
from vitnla.data.dataset import Dataset, Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS, Decomposition
from vitnla.methods.parts.report_rows import layer_row
from vitnla.model import Ranks, VisionTransformer, ViTConfig
from vitnla.sources.source_model import SourceModel
from vitnla.training.initialise import new_model


def _declare_torchvision_operators() -> torch.library.Library | None:
    """Let torchvision, and so timm and transformers, be imported beside a torch of another build (CPU, where it wants CUDA).

    Its import registers shapes of two operators that its compiled part would have defined. No test runs them.
    """
    if hasattr(torch.ops.torchvision, "nms") or importlib.util.find_spec("torchvision") is None:
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
    return library


_TORCHVISION_OPERATORS = _declare_torchvision_operators()


@pytest.fixture(scope="session")
def tiny_config() -> ViTConfig:
    return ViTConfig.uniform(
        image_size=8, patch_size=4, channels=1, classes=10, dim=16, depth=2, heads=2, mlp_ratio=2.0, pooling="cls+mean"
    )


def shaken(model: VisionTransformer) -> VisionTransformer:
    """The model with noise on every weight, so that no bias or position is zero and could be folded away."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture
def tiny_model(tiny_config: ViTConfig) -> VisionTransformer:
    """A two-layer dense ViT with weights of trained-like scale, biases included."""
    return shaken(new_model(tiny_config, seed=1))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITDEPLOY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_data() -> Dataset:
    """Random images of 8 x 8 x 1 and labels, in three splits."""
    generator = np.random.default_rng(3)
    sizes = {"calibration": 24, "validation": 12, "test": 20}
    splits = {
        name: Split(generator.integers(0, 256, (size, 8, 8, 1), np.uint8), generator.integers(0, 10, size, np.int64))
        for name, size in sizes.items()
    }
    return Dataset("tiny", tuple("abcdefghij"), splits)


@pytest.fixture(scope="session")
def tiny_source(tiny_config: ViTConfig, tiny_data: Dataset) -> SourceModel:
    """The dense source of the tiny bundles."""
    preprocessing = Preprocessing(image_size=8, mean=(0.3,), std=(0.35,))
    return SourceModel("tiny", "5" * 64, shaken(new_model(tiny_config, seed=1)), preprocessing, tiny_data.labels)


@pytest.fixture(scope="session")
def tiny_low_rank(tiny_config: ViTConfig) -> Decomposition:
    """A model with low-rank linears of random weights; `proj` and the second block's `fc1` stay dense."""
    ranks = (Ranks(qkv=4, fc1=6, fc2=5), Ranks(qkv=4, fc2=5))
    blocks = tuple(block.model_copy(update={"ranks": rank}) for block, rank in zip(tiny_config.blocks, ranks, strict=True))
    with torch.random.fork_rng():
        torch.manual_seed(0)  # other tests draw numbers too, and int8 parity depends on the weights
        model = shaken(VisionTransformer(tiny_config.model_copy(update={"blocks": blocks})))
    return Decomposition(model, tuple(layer_row(model.config, *key) for key in model.linear_names()))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_source: SourceModel, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The dense tiny model, exported."""
    method = METHODS["none"]
    dense = method.apply(tiny_source.model, None, method.config())
    return export_decomposition(tiny_source, dense, tiny_data, tmp_path_factory.mktemp("exported") / "tiny-none", "none")


def _low_rank_bundle(source: SourceModel, model: Decomposition, data: Dataset, folder: Path, precision: str) -> Bundle:
    return export_decomposition(source, model, data, folder, precision=precision)


@pytest.fixture(scope="session")
def tiny_low_rank_bundle(
    tiny_source: SourceModel, tiny_low_rank: Decomposition, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The low-rank tiny model, exported."""
    return _low_rank_bundle(tiny_source, tiny_low_rank, tiny_data, tmp_path_factory.mktemp("exported") / "tiny-svd", "fp32")


@pytest.fixture(scope="session")
def tiny_pixel_bundle(
    tiny_source: SourceModel, tiny_data: Dataset, tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The dense tiny model: pixels of 20 x 12 in, probabilities out. Its trace is already known."""
    method, graph = METHODS["none"], onnx.load(tiny_bundle.model_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export.bundle.from_model, "trace", lambda model, opset: graph)
        dense = method.apply(tiny_source.model, None, method.config())
        folder = tmp_path_factory.mktemp("exported") / "tiny-pixels"
        embedding = Embedding((20, 12), "probabilities")
        return export_decomposition(tiny_source, dense, tiny_data, folder, "none", embedding=embedding)


@pytest.fixture(scope="session")
def tiny_int8_bundle(
    tiny_source: SourceModel, tiny_low_rank: Decomposition, tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The low-rank tiny model, its linears in int8."""
    return _low_rank_bundle(tiny_source, tiny_low_rank, tiny_data, tmp_path_factory.mktemp("exported") / "tiny-int8", "int8")


@pytest.fixture
def fake_runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runners of `fake_runners.py`, installed as a third-party package is: for this process and for its workers."""
    names = [name for name, kind in vars(fakes).items() if isinstance(kind, type) and issubclass(kind, fakes.Quick)]
    package = tmp_path / "site" / "fake_runners-1.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-runners\nVersion: 1.0\n")
    lines = [f"{name.lower()} = {fakes.__name__}:{name}" for name in names]
    (package / "entry_points.txt").write_text("\n".join(["[vitdeploy.runners]", *lines, ""]))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), str(Path(__file__).parents[1])]))
    return [name.lower() for name in names]
