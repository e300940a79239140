"""Bundles of models that decompose activations: which form the graph holds, and that a form that is not faithful is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.engine.graph import TOLERANCE, engine_graph
from export.graph.online_form import online_form, require_faithful
from runtime.bundle.schema import MODEL, Bundle, Manifest, OnlineForm, Parity, open_bundle
from tests.conftest import shaken
from tests.helpers.exports import export_decomposition
from vitnla.common.errors import VerdictError
from vitnla.data.dataset import Dataset
from vitnla.methods import Decomposition
from vitnla.methods.parts.report_rows import layer_row
from vitnla.model import Ranks, ViTConfig, load_checkpoint
from vitnla.model.config import StoredFactor, Truncation
from vitnla.sources.source_model import SourceModel
from vitnla.training.initialise import new_model

SVD, PCA, TENSOR = (Truncation(kind=kind, rank=2) for kind in ("svd", "pca", "tensor"))


def blocks_of(source: SourceModel, *changes: dict[str, Any]) -> Decomposition:
    """A model whose blocks have these forms, random weights, and the source's other widths."""
    config = source.model.config
    blocks = [config.blocks[0].changed(**change) for change in changes]
    model = shaken(new_model(ViTConfig.model_validate({**dict(config), "blocks": blocks}), seed=1))
    return Decomposition(model, tuple(layer_row(model.config, *key) for key in model.linear_names()))


def export(decomposition: Decomposition, source: SourceModel, data: Dataset, folder: Path, **options: Any) -> Bundle:
    return export_decomposition(source, decomposition, data, folder, "online", **options)


def run(bundle: Bundle, images: Any) -> Any:
    return onnxruntime.InferenceSession(bundle.folder / MODEL).run(None, {"images": images})[0]


@pytest.mark.parametrize(
    ("changes", "kinds", "form"),
    [
        ([{"online": SVD}, {"attention": "gram", "online": PCA}], ("pca", "svd"), "matmul"),
        ([{"online": StoredFactor()}], ("cholesky",), "omitted"),
        ([{"attention": "cholesky"}, {"attention": "symmetric", "ranks": Ranks(qkv=16, fc2=16)}], (), None),
    ],
)
def test_the_graph_says_what_torch_says(
    changes: list[dict[str, Any]], kinds: tuple[str, ...], form: str | None,
    tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path,
) -> None:  # fmt: skip
    decomposition = blocks_of(tiny_source, *changes)
    bundle = export(decomposition, tiny_source, tiny_data, tmp_path / "bundle")
    manifest = bundle.manifest
    assert manifest.parity.max_rel < 1e-5
    found = manifest.online
    assert ((found.kinds, found.form) if found else ((), None)) == (kinds, form)
    assert manifest.graph.operators.get("Loop", 0) == (2 if form == "matmul" else 0)
    assert load_checkpoint(bundle.folder / "checkpoint").config == decomposition.model.config
    images = np.random.default_rng(0).standard_normal((3, 1, 8, 8), np.float32)
    with torch.inference_mode():
        expected = decomposition.model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run(bundle, images), expected, atol=1e-4 * np.abs(expected).max())


def test_a_tensor_bundle_depends_on_its_batch_as_torch_does(tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path) -> None:
    bundle = export(blocks_of(tiny_source, {"attention": "gram", "online": TENSOR}), tiny_source, tiny_data, tmp_path / "tensor")
    images, reference = bundle.reference()
    together, alone = run(bundle, images), np.concatenate([run(bundle, image[None]) for image in images])
    np.testing.assert_allclose(together, reference, atol=1e-4 * np.abs(reference).max())
    assert np.abs(alone - reference).max() > 1e-3 * np.abs(reference).max()


def test_a_form_that_is_not_faithful_is_refused_with_the_reason(
    tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vitnla.linalg.torch.projector.purified_projector.__defaults__", (3,))
    decomposition = blocks_of(tiny_source, {"online": SVD})
    with pytest.raises(VerdictError, match=r"online svd: ONNX has no SVD.*expected at most 1e-04") as caught:
        export(decomposition, tiny_source, tiny_data, tmp_path / "bundle")
    assert "gap between the singular values" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    manifest = export(decomposition, tiny_source, tiny_data, tmp_path / "bundle", allow_parity_failure=True).manifest
    assert manifest.online is not None
    assert not manifest.online.parity.met
    assert not manifest.parity.met


def test_a_model_without_online_blocks_has_no_form(tiny_source: SourceModel, tiny_bundle: Bundle) -> None:
    assert online_form(tiny_source.model, np.zeros((1, 1, 8, 8), np.float32)) is None
    assert tiny_bundle.manifest.online is None


def test_a_manifest_written_before_the_field_is_read(tiny_bundle: Bundle) -> None:
    old = tiny_bundle.manifest.model_dump(mode="json")
    del old["online"]
    assert Manifest.model_validate(old) == open_bundle(tiny_bundle.folder).manifest


def test_an_exact_form_needs_no_permission() -> None:
    met, failed = (Parity(max_rel=error, tolerance=1e-4, batches=(1,)) for error in (1e-5, 1e-3))
    require_faithful(OnlineForm(kinds=("svd",), form="matmul", parity=met), allowed=False)
    require_faithful(OnlineForm(kinds=("svd",), form="matmul", parity=failed), allowed=True)
    with pytest.raises(VerdictError, match=r"differ from torch's by 1\.0e-03"):
        require_faithful(OnlineForm(kinds=("svd",), form="matmul", parity=failed), allowed=False)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_lower_precision_leaves_the_loops_in_fp32(
    precision: Literal["fp16", "bf16"], tiny_source: SourceModel, tiny_data: Dataset, tmp_path: Path
) -> None:
    decomposition = blocks_of(tiny_source, {"online": SVD}, {"attention": "gram", "online": PCA})
    bundle = export(decomposition, tiny_source, tiny_data, tmp_path / "online", allow_parity_failure=True)
    _, error = engine_graph(bundle.folder, precision, tmp_path)
    assert 1e-5 < error < TOLERANCE[precision]
    lowered = onnx.load(tmp_path / MODEL)
    loops = [node for node in lowered.graph.node if node.op_type == "Loop"]
    assert len(loops) == 2
    body = onnx.shape_inference.infer_shapes(lowered).graph
    types = {value.name: value.type.tensor_type.elem_type for value in body.value_info}
    assert {types[name] for loop in loops for name in loop.output if name in types} <= {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.INT64,
    }
