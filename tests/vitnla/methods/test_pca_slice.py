"""The pca-slice method: folds and rotation exact, the cut honest, and the narrower model a plain one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from export.graph.files import save_model
from export.graph.inspect import operator_counts, require_standard_operators
from export.graph.parity import OnnxModel, torch_logits
from export.graph.simplify import simplify
from export.graph.trace import trace
from export.precision.cast import to_fp16
from runtime.check.logits import relative_error
from tests.conftest import shaken
from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.methods.parts.residual_stream import fold_norms, normed_moments, write
from vitnla.methods.pca_slice.apply import lift, principal_axes, slice_stream
from vitnla.methods.pca_slice.config import PcaSliceConfig
from vitnla.methods.registry import Decomposition
from vitnla.methods.svd.apply import SvdConfig
from vitnla.model import VisionTransformer, ViTConfig, load_checkpoint, save_checkpoint
from vitnla.model.checkpoint import build
from vitnla.model.config import Pooling
from vitnla.model.cost import encoder_macs
from vitnla.model.layers import Block

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)


def make(pooling: Pooling = "cls+mean", head_hidden: int | None = None, registers: int = 0, dead: int = 0) -> VisionTransformer:
    """A model with LayerScale and everything else that the stream can have, random gains and offsets, `dead` of them zero."""
    model = shaken(
        VisionTransformer(
            ViTConfig.uniform(
                image_size=8, patch_size=4, channels=1, classes=10, dim=16, depth=2, heads=2, mlp_ratio=2.0, layer_scale=True,
                registers=registers, pooling=pooling, head_hidden=head_hidden, class_token=pooling != "mean", norm_eps=1e-3,
            )
        )
    )  # fmt: skip
    with torch.no_grad():
        for block in model.blocks:
            cast(Block, block).norm1.weight[:dead] = 0.0  # type: ignore[operator]
    return model


@pytest.fixture
def model() -> VisionTransformer:
    return make()


@pytest.fixture
def statistics(model: VisionTransformer) -> Statistics:
    return collect(model, IMAGES, PREPROCESSING)


def pca_slice(model: VisionTransformer, statistics: Statistics | None, **settings: object) -> Decomposition:
    return METHODS["pca-slice"].apply(model, statistics, PcaSliceConfig.model_validate({"width_multiple": 1, **settings}))


def logits(model: VisionTransformer) -> Tensor:
    with torch.inference_mode():
        out: Tensor = model(torch.from_numpy(PREPROCESSING(IMAGES)).to(model.pos_embed))
        return out.double()


def sliced(model: VisionTransformer, statistics: Statistics, width: int) -> VisionTransformer:
    """The method's model before it is rounded to float32."""
    moments = normed_moments(model, statistics)
    axes = principal_axes(moments)
    lifts = {reader: lift(axes, width, seen) for reader, seen in moments.items()}
    tensors, config = slice_stream(fold_norms(model), axes[:, :width], lifts)
    return build(config, tensors, "sliced model", torch.float64)


@pytest.mark.parametrize(
    "kind",
    [{}, {"pooling": "cls"}, {"pooling": "mean"}, {"head_hidden": 12}, {"registers": 3}, {"dead": 1}, {"dead": 5}],
    ids=str,
)
def test_folds_and_rotation_are_exact(kind: dict[str, object]) -> None:
    model = make(**kind).double()  # type: ignore[arg-type]
    expected = logits(model)
    assert float((logits(fold_norms(model)) - expected).abs().max()) < 1e-10
    rotated = sliced(model, collect(model, IMAGES, PREPROCESSING), 16)
    assert (rotated.config.dim, rotated.config.norm, rotated.config.layer_scale) == (16, "rms", False)
    assert float((logits(rotated) - expected).abs().max()) < 1e-10


def test_the_mean_of_the_stream_costs_nothing(model: VisionTransformer) -> None:
    """LayerNorm cannot see the direction of ones, so one axis less is exact as well."""
    model = model.double()
    error = logits(sliced(model, collect(model, IMAGES, PREPROCESSING), 15)) - logits(model)
    assert float(error.abs().max()) < 1e-10
    assert float((logits(sliced(model, collect(model, IMAGES, PREPROCESSING), 14)) - logits(model)).abs().max()) > 1e-4


def test_a_stream_that_lies_in_fewer_axes_is_cut_to_these_without_loss(model: VisionTransformer) -> None:
    """Everything that writes the stream is confined to 6 directions of zero mean; the method must find them."""
    model = model.double()
    axes = torch.linalg.qr(torch.randn(16, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    axes = torch.linalg.qr(axes - axes.mean(0)).Q
    inside = axes @ axes.T
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith("patch_embed"):
                tensor.copy_(torch.tensordot(inside, tensor, 1))
            elif name in ("prefix", "pos_embed"):
                tensor.copy_(tensor @ inside)
            elif ".proj." in name or ".fc2." in name:
                tensor.copy_(inside @ tensor)
            elif name.endswith("gamma"):
                tensor.fill_(0.7)
    statistics = collect(model, IMAGES, PREPROCESSING)
    assert float((logits(sliced(model, statistics, 6)) - logits(model)).abs().max()) < 1e-10
    assert max(row.relative_error for row in pca_slice(model, statistics, dim=6).layers) < 1e-6


def test_moments_are_those_of_the_normed_stream(model: VisionTransformer, statistics: Statistics) -> None:
    with torch.no_grad():
        tokens = model.embed(torch.from_numpy(PREPROCESSING(IMAGES))).double().reshape(-1, 16)
    centred = tokens - tokens.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + 1e-3).sqrt()
    found = normed_moments(model, statistics)
    assert set(found) == {f"blocks.{block}.{name}" for block in (0, 1) for name in ("attn.qkv", "mlp.fc1")} | {"head"}
    assert torch.allclose(found["blocks.0.attn.qkv"].gram, normed.T @ normed / len(normed), atol=1e-5)
    assert torch.allclose(found["blocks.0.attn.qkv"].mean, normed.mean(0), atol=1e-5)


def test_axes_are_the_best_of_all_for_the_mean_moment(model: VisionTransformer, statistics: Statistics) -> None:
    moments = normed_moments(model, statistics)
    mean = torch.stack([seen.gram for seen in moments.values()]).mean(0)
    axes = principal_axes(moments)
    assert torch.allclose(axes.T @ axes, torch.eye(16, dtype=torch.float64), atol=1e-12)
    generator = torch.Generator().manual_seed(0)
    for width in (1, 5, 12):
        kept = float((axes[:, :width].T @ mean @ axes[:, :width]).trace())
        assert kept == pytest.approx(float(torch.linalg.eigvalsh(mean).flip(0)[:width].sum()), rel=1e-12)
        for _ in range(20):
            other = torch.linalg.qr(torch.randn(16, width, dtype=torch.float64, generator=generator)).Q
            assert float((other.T @ mean @ other).trace()) < kept


def test_the_lift_is_the_regression_on_the_axes_kept(model: VisionTransformer, statistics: Statistics) -> None:
    """Against least squares on the tokens themselves, with an intercept."""
    moments = normed_moments(model, statistics)
    axes = principal_axes(moments)
    with torch.no_grad():
        tokens = model.embed(torch.from_numpy(PREPROCESSING(IMAGES))).double().reshape(-1, 16)
    centred = tokens - tokens.mean(1, keepdim=True)
    normed = centred / (centred.square().mean(1, keepdim=True) + 1e-3).sqrt()
    found = lift(axes, 5, moments["blocks.0.attn.qkv"])
    inputs = torch.cat([normed @ axes[:, :5], torch.ones(len(normed), 1, dtype=torch.float64)], dim=1)
    best = torch.linalg.lstsq(inputs, normed).solution
    error = (normed - normed @ found.back.T - found.offset).norm()
    assert float(error) == pytest.approx(float((normed - inputs @ best).norm()), rel=1e-3)
    assert float(error) < float((normed - normed @ axes[:, :5] @ axes[:, :5].T).norm()) * (1 - 1e-3)


def test_reported_errors_are_those_of_the_outputs(model: VisionTransformer, statistics: Statistics) -> None:
    """Of the first linear, whose input is exact but for the cut; measured on what the sliced model writes and reads."""
    row = pca_slice(model, statistics, dim=8).layers[0]
    folded, moments = fold_norms(model), normed_moments(model, statistics)
    axes = principal_axes(moments)
    with torch.no_grad():
        u = cast(Block, folded.blocks[0]).norm1(folded.embed(torch.from_numpy(PREPROCESSING(IMAGES)).double())).reshape(-1, 16)
        found = lift(axes, 8, moments["blocks.0.attn.qkv"])
        exact = folded.linear(0, "qkv")(u)
        guessed = folded.linear(0, "qkv")(u @ axes[:, :8] @ found.matrix.T + found.offset)
    assert row.relative_error == pytest.approx(float((guessed - exact).norm() / (exact - exact.mean(0)).norm()), rel=1e-4)
    assert row.relative_error > 0.01


def test_wider_streams_lose_less(model: VisionTransformer, statistics: Statistics) -> None:
    dense = logits(model)
    results = [pca_slice(model, statistics, dim=width) for width in (2, 6, 10, 14)]
    errors = [float((logits(result.model) - dense).norm()) for result in results]
    assert errors[0] > errors[1] > errors[2] > errors[3] > 0
    kept = [[row.retained_energy for row in result.layers if row.linear in ("qkv", "fc1")] for result in results]
    assert all(narrow < wide for few, more in pairwise(kept) for narrow, wide in zip(few, more, strict=True))


@pytest.mark.parametrize("target", [0.25, 0.6, 1.0])
def test_the_target_is_met_in_proportion(model: VisionTransformer, statistics: Statistics, target: float) -> None:
    result = pca_slice(model, statistics, target_macs=target)
    macs = encoder_macs(result.model.config, model.config)
    assert macs.ratio == result.model.config.dim / 16
    assert target - 1 / 16 < macs.ratio <= target
    assert sum(row.macs for row in result.layers) == macs.model
    assert pca_slice(model, statistics, target_macs=0.8, width_multiple=4).model.config.dim == 12


def test_singular_moments_and_extreme_scales(model: VisionTransformer) -> None:
    """One image of five tokens spans few axes; streams of 1e8 and 1e-2 have the same normed stream when eps is out of sight."""
    few = collect(model, IMAGES[:1], PREPROCESSING)
    assert torch.isfinite(logits(pca_slice(model, few, dim=12).model)).all()
    errors = []
    for scale in (1.0, 1e8, 1e-8):
        config = model.config.model_copy(update={"norm_eps": 1e-3 * scale**2})
        scaled = build(config, {name: tensor.clone() for name, tensor in model.state_dict().items()}, "scaled", torch.float64)
        with torch.no_grad():
            for name, tensor in scaled.state_dict().items():
                if name.startswith(("patch_embed", "prefix", "pos_embed")) or name.endswith("gamma"):
                    tensor.mul_(scale)
        result = sliced(scaled, collect(scaled, IMAGES, PREPROCESSING), 8)
        errors.append(float((logits(result) - logits(scaled)).norm()))
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-6)


def test_a_checkpoint_without_norm_is_layer_norm_and_a_sliced_one_loads(
    model: VisionTransformer, statistics: Statistics, tmp_path: Path
) -> None:
    old = model.config.model_dump(mode="json")
    del old["norm"]
    assert ViTConfig.model_validate(old) == model.config
    result = pca_slice(model, statistics, dim=8).model
    save_checkpoint(result, tmp_path / "sliced")
    assert torch.equal(logits(load_checkpoint(tmp_path / "sliced")), logits(result))


def test_the_exported_graph_is_standard_and_equals_torch(
    model: VisionTransformer, statistics: Statistics, tmp_path: Path
) -> None:
    result = pca_slice(model, statistics, dim=8).model
    images = PREPROCESSING(IMAGES)
    for graph in (traced := trace(result), simplify(traced, result.config).model):
        require_standard_operators(graph)
        assert "LayerNormalization" not in operator_counts(graph)
        save_model(graph, tmp_path / "model.onnx")
        assert relative_error(OnnxModel(tmp_path / "model.onnx")(images), torch_logits(result, images)) < 1e-5


def test_fp16_squares_the_stream_in_fp32(model: VisionTransformer, statistics: Statistics, tmp_path: Path) -> None:
    """A stream of several hundred, whose squares are beyond fp16."""
    result = pca_slice(model, statistics, dim=8).model
    tensors = write(result.state_dict(), result.config, lambda x: 300 * x)
    result = build(result.config.model_copy(update={"norm_eps": 300**2 * result.config.norm_eps}), tensors, "scaled")
    images = PREPROCESSING(IMAGES)
    with torch.inference_mode():
        assert float(result.embed(torch.from_numpy(images)).square().max()) > 65504
    half = to_fp16(simplify(trace(result), result.config).model)
    save_model(half, tmp_path / "half.onnx")
    assert relative_error(OnnxModel(tmp_path / "half.onnx")(images), torch_logits(result, images)) < 2e-2
    in_fp32 = (node for node in half.graph.node if node.op_type in ("Pow", "Sqrt", "Reciprocal"))
    half_types = {node.output[0] for node in half.graph.node if node.op_type == "Cast" and node.attribute[0].i == 10}
    assert not any(name in half_types for node in in_fp32 for name in node.input)


def test_what_cannot_be_sliced_is_refused_in_one_line(model: VisionTransformer, statistics: Statistics) -> None:
    with pytest.raises(InputError, match="expected calibration statistics"):
        pca_slice(model, None, dim=8)
    with pytest.raises(InputError, match="got norm 'rms', sliced already"):
        pca_slice(pca_slice(model, statistics, dim=8).model, statistics, dim=4)
    low_rank = METHODS["svd"].apply(model, statistics, SvdConfig(rank=4)).model
    with pytest.raises(InputError, match="block 0 qkv: expected a dense linear"):
        pca_slice(low_rank, statistics, dim=8)
    gram = METHODS["pca-online"].apply(model, statistics, METHODS["pca-online"].config()).model
    with pytest.raises(
        InputError, match="block 0: expected a block that reads and writes the stream through its linears alone, got"
    ):
        pca_slice(gram, statistics, dim=8)
    with pytest.raises(InputError, match="dim: expected at most 16, that of the model, got 17"):
        pca_slice(model, statistics, dim=17)
    with pytest.raises(InputError, match=r"expected a ratio from 0\.5 to 1, got 0\.3"):
        pca_slice(model, statistics, target_macs=0.3, width_multiple=8)
    with torch.no_grad():
        model.linear(1, "fc1").weight[0, 0] = torch.nan  # type: ignore[operator]
    with pytest.raises(InputError, match="NaN or infinity"):
        pca_slice(model, statistics, dim=8)


def test_settings() -> None:
    assert PcaSliceConfig().target_macs == 0.75
    assert PcaSliceConfig(dim=8).target_macs is None
    assert PcaSliceConfig.model_validate_json(PcaSliceConfig(dim=8).to_json()) == PcaSliceConfig(dim=8)
    with pytest.raises(InputError, match="expected one of dim and target_macs, got both"):
        PcaSliceConfig(dim=8, target_macs=0.5)
    with pytest.raises(InputError, match="target_macs: expected a share above 0 and at most 1"):
        PcaSliceConfig(target_macs=1.5)
