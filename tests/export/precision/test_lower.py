"""Bundles in every precision, exported whole from the tiny model."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export.bundle.from_model import export_bundle
from export.bundle.plan import ExportOptions
from runtime.bundle.schema import MODEL, Bundle
from runtime.check.logits import relative_error
from runtime.check.parity import TOLERANCES
from runtime.runners.base import RunOptions
from runtime.runners.registry import runner
from vitnla.common.errors import VerdictError
from vitnla.data.dataset import Dataset
from vitnla.decomposition import DecomposedModel
from vitnla.methods.none.config import NoneConfig
from vitnla.methods.registry import Decomposition
from vitnla.sources.source_model import SourceModel
from vitnla.training.initialise import new_model

needs_nncf = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="nncf is not installed")
LINEARS = 8
"""Four in each of the two blocks."""


def _export(
    source: SourceModel, data: Dataset, destination: Path, options: ExportOptions, decomposition: Decomposition
) -> Bundle:
    made = DecomposedModel(source, decomposition, "none", NoneConfig(), data)
    return export_bundle(made, destination, options, command="test")


@pytest.mark.parametrize(
    ("precision", "runtime"),
    [
        ("fp16", "ort"), ("int8", "ort"), ("int8-dynamic", "ort"), ("int8", "trt-rtx"), ("fp8", "trt-rtx"),
        pytest.param("int8", "openvino", marks=needs_nncf),
    ],
)  # fmt: skip
def test_a_bundle_of_every_precision(
    precision: str, runtime: str, tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path
) -> None:
    options = ExportOptions(precision=precision, runtime=runtime)
    bundle = _export(tiny_source, tiny_data, tmp_path / "out", options, Decomposition(tiny_source.model, ()))
    manifest = bundle.manifest
    assert (manifest.precision, manifest.runtime) == (precision, runtime)
    stages = ["decomposition", "precision", *(["runtime"] if runtime == "openvino" else [])]
    assert [loss.stage for loss in manifest.losses] == stages
    assert manifest.losses[0].flips == 0  # nothing was decomposed
    assert manifest.accuracy.top1 == manifest.losses[-1].top1
    images, logits = bundle.reference()
    session = runner("ort").load(bundle, RunOptions(threads=1))
    error = relative_error(session.run(images), logits)
    assert 1e-6 < error <= TOLERANCES[manifest.precision]
    if precision == "fp16":
        assert manifest.quantization is None
    else:
        assert manifest.quantization is not None
        assert manifest.quantization.runtime == runtime
        assert manifest.quantization.quantized >= LINEARS or manifest.quantization.kept_in_float
    weights = onnx.load(bundle.folder / MODEL).graph.initializer
    kinds = {tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in weights}
    assert {"fp16": "FLOAT16", "fp8": "FLOAT8E4M3FN"}.get(precision, "INT8") in kinds.values()
    in_half = precision == "fp16" or runtime == "trt-rtx"
    assert any(name.startswith("head.weight") and kind == ("FLOAT16" if in_half else "FLOAT") for name, kind in kinds.items()), (
        kinds
    )


@needs_nncf
@pytest.mark.parametrize("activations", ["asymmetric", "symmetric"])
def test_symmetric_activations_have_no_zero_point(
    activations: str, tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path
) -> None:
    options = ExportOptions(precision="int8", runtime="openvino", int8_activations=activations)
    bundle = _export(tiny_source, tiny_data, tmp_path / "out", options, Decomposition(tiny_source.model, ()))
    graph = onnx.load(bundle.folder / MODEL).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    points = [int(np.abs(values[node.input[2]]).max()) for node in graph.node if node.op_type == "QuantizeLinear"]
    assert points
    assert any(points) == (activations == "asymmetric")
    assert bundle.manifest.quantization is not None
    assert f", {activations} inputs" in bundle.manifest.quantization.scheme


@needs_nncf
def test_int8_answers_alike_with_and_without_a_static_shape(tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path) -> None:
    """It did not while the pooled tokens were quantised, see `export.precision.runtimes.openvino_nncf`."""
    config = tiny_source.model.config.model_copy(update={"pooling": "cls+mean"})
    source = replace(tiny_source, model=new_model(config, seed=0), sha256="0" * 64)
    options = ExportOptions(precision="int8", runtime="openvino")
    bundle = _export(source, tiny_data, tmp_path / "out", options, Decomposition(source.model, ()))
    images, _ = bundle.reference()
    static, other = (runner("openvino").load(bundle, RunOptions(threads=1, batch=batch)) for batch in (len(images), 1000))
    assert relative_error(static.run(images), other.run(images)) < 0.02


def test_an_fp16_bundle_that_overflows_is_refused_by_layer(tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path) -> None:
    model = copy.deepcopy(tiny_source.model)
    with torch.no_grad():
        torch.nn.init.constant_(model.get_parameter("blocks.1.mlp.fc1.bias"), 9e4)
    source = replace(tiny_source, model=model, sha256="0" * 64)
    with pytest.raises(VerdictError, match=r"at blocks\.1\.mlp\.fc1 reaches \S+, and fp16 ends at 6.55e\+04"):
        _export(source, tiny_data, tmp_path / "out", ExportOptions(precision="fp16"), Decomposition(model, ()))
    assert not (tmp_path / "out").exists()


def test_int8_gives_the_same_bytes_twice(tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path) -> None:
    made = [
        _export(tiny_source, tiny_data, tmp_path / name, ExportOptions(precision="int8"), Decomposition(tiny_source.model, ()))
        for name in ("one", "two")
    ]
    one, two = (onnx.load(bundle.folder / MODEL).graph for bundle in made)
    assert [tensor.raw_data for tensor in one.initializer] == [tensor.raw_data for tensor in two.initializer]
    assert np.array_equal(*(bundle.reference()[0] for bundle in made))
