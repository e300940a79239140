"""Preprocessing inside the graph: the same pixels as ours to one grey level, and every consumer takes what the manifest says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.engine.build import build_engines, plan_engines
from export.graph.files import save_model
from export.graph.inputs import bundle_preparation
from export.graph.parity import OnnxModel, torch_logits
from export.graph.preprocessing import PREFIX, Embedding, embed, parse_embedding, tensor_specs
from export.graph.preprocessing_twin import GREY_LEVELS, EmbeddedViT, require_same_pixels
from export.graph.trace import trace
from export.precision.cast import to_fp16
from runtime.bench.plan import BenchPlan, Target
from runtime.bench.run import run_bench
from runtime.bundle.schema import MODEL, Bundle
from runtime.check.logits import relative_error
from runtime.check.parity import check_parity
from runtime.runners.base import RunOptions
from runtime.runners.registry import runner
from runtime.runners.trt.library import RTX
from tests.conftest import shaken
from tests.helpers.bundles import agreeing_evaluation
from vitnla.common.errors import InputError, VerdictError
from vitnla.common.preprocessing import Interpolation
from vitnla.data.dataset import Dataset
from vitnla.data.pixel_map import pixel_map
from vitnla.data.preprocessing import Preprocessing
from vitnla.model import VisionTransformer, ViTConfig
from vitnla.sources.source_model import SourceModel
from vitnla.training.initialise import new_model

COLOUR = Preprocessing(image_size=8, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3), interpolation="bicubic")


def images(count: int, size: tuple[int, int], channels: int = 1) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, *size, channels), np.uint8)


def test_what_resizing_costs_is_not_put_down_to_the_decomposition(tiny_pixel_bundle: Bundle) -> None:
    resized, decomposed = tiny_pixel_bundle.manifest.losses
    assert (resized.stage, decomposed.stage) == ("preprocessing", "decomposition")
    assert "20 x 12 pixels" in resized.after
    assert resized.logit_error > 1e-3
    assert (decomposed.flips, decomposed.lost_points) == (0, 0.0)


class TestPixels:
    @pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
    @pytest.mark.parametrize("size", [(8, 8), (16, 16), (5, 5), (20, 12), (12, 20), (8, 11), (31, 8), (24, 6), (40, 28)])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_noise_is_within_a_grey_level(self, interpolation: Interpolation, size: tuple[int, int], channels: int) -> None:
        preprocessing = Preprocessing(
            image_size=8, mean=(0.5, 0.4, 0.3)[:channels], std=(0.2, 0.25, 0.3)[:channels], interpolation=interpolation
        )
        twin = EmbeddedViT(torch.nn.Identity(), pixel_map(preprocessing, size), "logits")
        found = require_same_pixels(twin, preprocessing, images(6, size, channels))
        exact = interpolation == "nearest" or size == (8, 8)
        assert found <= (1e-3 if exact else GREY_LEVELS if interpolation == "bicubic" else 1.001)

    def test_nothing_is_multiplied_where_nothing_is_resized(self) -> None:
        assert pixel_map(COLOUR, (8, 8)).products == ()
        assert [name for name, _ in pixel_map(COLOUR, (8, 9)).products] == ["columns"]

    def test_another_filter_is_noticed(self) -> None:
        other = COLOUR.model_copy(update={"interpolation": "nearest"})
        twin = EmbeddedViT(torch.nn.Identity(), pixel_map(other, (16, 16)), "logits")
        with pytest.raises(VerdictError, match=r"differs by [\d.]+ grey levels, expected at most 1.25"):
            require_same_pixels(twin, COLOUR, images(2, (16, 16), 3))


class TestGraph:
    @pytest.fixture(scope="class")
    @staticmethod
    def colour() -> tuple[VisionTransformer, onnx.ModelProto]:
        config = ViTConfig.uniform(image_size=8, patch_size=4, channels=3, classes=5, dim=16, depth=1, heads=2)
        model = shaken(new_model(config, seed=1))
        return model, trace(model)

    @pytest.mark.parametrize("size", [None, (14, 23)])
    @pytest.mark.parametrize("grey", [False, True])
    def test_logits_are_within_the_effect_of_a_grey_level(
        self, colour: tuple[VisionTransformer, onnx.ModelProto], tmp_path: Path, size: tuple[int, int] | None, grey: bool
    ) -> None:
        model, graph = colour
        embedding = Embedding(size)
        made = embed(graph, embedding.pixel_map(COLOUR), tensor_specs(model.config, embedding))
        save_model(made, tmp_path / MODEL)
        pixels = COLOUR.pixels(images(5, size or (8, 8), 1 if grey else 3), size or (8, 8))
        assert pixels.shape[-1] == 3
        ours = COLOUR(pixels)
        difference = np.abs(OnnxModel(tmp_path / MODEL)(pixels) - torch_logits(model, ours))
        # To first order, no change of every pixel by one level can do more than this.
        slopes = torch.func.vmap(torch.func.jacrev(lambda image: model(image[None])[0]))(torch.from_numpy(ours)).detach().numpy()
        level = GREY_LEVELS / 255 / np.asarray(COLOUR.std).reshape(-1, 1, 1)
        effect = (np.abs(slopes) * level).sum(axis=(2, 3, 4))
        assert (difference <= (1e-5 if size is None else 1.05 * effect)).all()

    def test_few_operators_are_added(self, colour: tuple[VisionTransformer, onnx.ModelProto]) -> None:
        model, graph = colour
        for size, kinds in (
            (None, ["Cast", "Transpose", "Mul", "Add"]),
            ((16, 16), ["Cast", "Transpose", "MatMul", "Clip", "MatMul", "Clip", "Mul", "Add"]),
        ):
            embedding = Embedding(size, "probabilities")
            made = embed(graph, embedding.pixel_map(COLOUR), tensor_specs(model.config, embedding))
            assert [node.op_type for node in made.graph.node if node.name.startswith(PREFIX)] == [*kinds, "Softmax"]
            assert len(made.graph.node) == len(graph.graph.node) + len(kinds) + 1
        assert graph.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT, "the graph given was changed"

    def test_fp16_leaves_the_pixels_in_fp32(self, tiny_pixel_bundle: Bundle, tmp_path: Path) -> None:
        save_model(to_fp16(onnx.load(tiny_pixel_bundle.model_path)), tmp_path / MODEL)
        given, expected = tiny_pixel_bundle.reference()
        assert 0 < relative_error(OnnxModel(tmp_path / MODEL)(given), expected) < 1e-2


class TestBundle:
    def test_the_manifest_says_what_the_graph_takes(self, tiny_pixel_bundle: Bundle) -> None:
        manifest = tiny_pixel_bundle.manifest
        assert (manifest.input.dtype, manifest.input.shape) == ("uint8", ("batch", 20, 12, 1))
        assert (manifest.output.name, manifest.output.shape) == ("probabilities", ("batch", 10))
        assert manifest.embedded is not None
        assert manifest.embedded.output == "probabilities"
        assert 0 < manifest.embedded.grey_levels <= 1
        assert manifest.parity.met
        assert manifest.preprocessing["image_size"] == 8
        session = onnxruntime.InferenceSession(tiny_pixel_bundle.model_path)
        assert json.loads(session.get_modelmeta().custom_metadata_map["vitdeploy.embedded"]) is True
        assert session.get_inputs()[0].type == "tensor(uint8)"

    def test_the_reference_holds_pixels_and_probabilities(self, tiny_pixel_bundle: Bundle) -> None:
        given, answers = tiny_pixel_bundle.reference()
        assert (given.dtype, given.shape) == (np.uint8, (8, 20, 12, 1))
        np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)

    def test_accuracy_is_that_of_resized_images(
        self, tiny_pixel_bundle: Bundle, tiny_source: SourceModel, tiny_data: Dataset
    ) -> None:
        test = tiny_data.split("test")
        prepared = bundle_preparation(tiny_pixel_bundle)(test.images)
        assert (prepared.dtype, prepared.shape) == (np.uint8, (20, 20, 12, 1))
        classes = torch_logits(tiny_source.model, tiny_source.preprocessing(prepared)).argmax(1)
        assert tiny_pixel_bundle.manifest.accuracy.top1 == pytest.approx((classes == test.labels).mean(), abs=0.051)

    @pytest.mark.parametrize("runtime", ["ort", "openvino", "torch"])
    def test_every_runtime_meets_parity(self, tiny_pixel_bundle: Bundle, tiny_data: Dataset, runtime: str) -> None:
        row = check_parity(
            tiny_pixel_bundle, Target(runtime), threads=1, evaluation=agreeing_evaluation(tiny_pixel_bundle, tiny_data)
        )
        assert (row.error, row.verdict, row.images) == (None, "met", 20)

    def test_floats_are_refused(self, tiny_pixel_bundle: Bundle) -> None:
        session = runner("ort").load(tiny_pixel_bundle, RunOptions(threads=1))
        with pytest.raises(InputError, match=r"ort: expected uint8 images \[B, 20, 12, 1\], got float32 \[1, 1, 8, 8\]"):
            session.run(np.zeros((1, 1, 8, 8), np.float32))

    def test_bench_measures_it(self, tiny_pixel_bundle: Bundle) -> None:
        (cell,) = run_bench(
            BenchPlan((tiny_pixel_bundle,), (Target("ort"),), (3,), 1, seconds=0.05, min_count=3, rounds=1), None, command="test"
        )
        assert cell.error is None
        assert cell.images_per_s is not None
        assert cell.images_per_s > 0

    @pytest.mark.skipif(not RTX.installed, reason="TensorRT for RTX is not installed")
    def test_tensorrt_for_rtx_compiles_it(self, tiny_pixel_bundle: Bundle, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(tiny_pixel_bundle.folder, tmp_path / "bundle"))
        plan = plan_engines("trt-rtx", ("SM89",), ("fp32", "fp16"), "1:2:4")
        assert plan is not None
        assert [record.graph_max_rel < 1e-2 for record in build_engines(folder, plan)] == [True, True]


class TestOptions:
    def test_what_is_asked_for(self) -> None:
        assert parse_embedding(False, None, "logits") is None
        assert parse_embedding(True, None, "logits") == Embedding()
        assert parse_embedding(True, "480X640", "probabilities") == Embedding((480, 640), "probabilities")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ((False, "8x8", "logits"), "--input-size requires --embed-preprocessing"),
            ((False, None, "probabilities"), "--output-kind requires --embed-preprocessing"),
            ((True, "8", "logits"), "expected HEIGHTxWIDTH, got '8'"),
            ((True, "8x8x3", "logits"), "expected HEIGHTxWIDTH"),
            ((True, "0x8", "logits"), "expected sides from 1 to 8192, got '0x8'"),
            ((True, None, "classes"), "unknown output kind 'classes'"),
        ],
    )
    def test_bad_requests_say_what_was_expected(self, arguments: tuple[bool, str | None, str], message: str) -> None:
        with pytest.raises(InputError, match=message):
            parse_embedding(*arguments)
