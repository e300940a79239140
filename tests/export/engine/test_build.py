"""TensorRT engines: real ones, compiled by TensorRT for RTX without a GPU, and what is said where one cannot be."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static

import export.engine.build
from export.engine.build import build_engines, plan_engines
from export.engine.compiler import BuildOptions, compile_engine
from export.engine.graph import TOLERANCE
from export.graph.files import save_model
from export.graph.trace import trace
from runtime.bundle.engines import BatchProfile, EngineRecord
from runtime.bundle.schema import MODEL, Bundle, open_bundle
from runtime.runners.availability import Availability
from runtime.runners.trt.library import RTX, TENSORRT, error_log
from vitnla.common.errors import InputError, MissingDependencyError, VerdictError
from vitnla.common.files import sha256_file
from vitnla.methods import Decomposition

needs_rtx = pytest.mark.skipif(not RTX.installed, reason="TensorRT for RTX is not installed")
NO_GPU = Availability(False, "it needs an NVIDIA GPU, and no NVIDIA driver was found", "use a machine with an NVIDIA GPU")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.runners.trt.library.cuda_availability", lambda: NO_GPU)
    monkeypatch.setattr(export.engine.build, "cuda_availability", lambda: NO_GPU)


@pytest.fixture
def no_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("tensorrt") else find(name))


@pytest.fixture
def folder(tiny_low_rank_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_low_rank_bundle.folder, tmp_path / "bundle"))


def _replace(folder: Path, weight: str, value: float) -> None:
    """Fill one weight of the bundle's graph."""
    model = onnx.load(folder / MODEL)
    tensor = next(one for one in model.graph.initializer if one.name == weight)
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tensor.dims, value, np.float32), weight))
    onnx.save(model, folder / MODEL)


def _quantise(bundle: Bundle, path: Path) -> None:
    """Write the bundle's graph with its linears in symmetric int8, calibrated on the reference."""
    images, _ = bundle.reference()

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter([{"images": images}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    quantize_static(
        bundle.model_path, path, Reader(), op_types_to_quantize=["MatMul", "Gemm"], per_channel=True,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "MatMulConstBOnly": True, "QuantizeBias": False},
    )  # fmt: skip


def _fp8_linear(path: Path) -> Path:
    """One linear whose input and weight pass through fp8."""
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    weight = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    tensors = {"scale": np.float32(0.01), "zero": np.zeros((), kind), "weight": (100 * weight).astype(kind)}
    nodes = [
        helper.make_node("QuantizeLinear", ["images", "scale", "zero"], ["quantised"]),
        helper.make_node("DequantizeLinear", ["quantised", "scale"], ["input"]),
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["dequantised"]),
        helper.make_node("MatMul", ["input", "dequantised"], ["logits"]),
    ]
    values = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 16, 16])] for name in ("images", "logits")]
    initialisers = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "fp8", *values, initialisers)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@needs_rtx
class TestRealEngines:
    @pytest.mark.parametrize("method", ["none", "svd"])
    def test_every_float_precision_is_compiled_without_a_gpu(
        self, method: str, tiny_bundle: Bundle, tiny_low_rank_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path / "cache"))  # an earlier test may have compiled this very graph
        folder = Path(shutil.copytree((tiny_bundle if method == "none" else tiny_low_rank_bundle).folder, tmp_path / "bundle"))
        plan = plan_engines("trt-rtx", ("SM89",), ("fp16", "bf16", "fp32"), "1:4:8")
        assert plan is not None
        steps: list[str] = []
        records = build_engines(folder, plan, steps.append)
        assert [record.precision for record in records] == ["fp32", "fp16", "bf16"]
        assert [step for step in steps if not step.startswith("TensorRT")] == [
            "checking the graph in fp32", "compile TensorRT for RTX engine SM89 fp32",
            "checking the graph in fp16", "compile TensorRT for RTX engine SM89 fp16",
            "checking the graph in bf16", "compile TensorRT for RTX engine SM89 bf16",
        ]  # fmt: skip
        assert "TensorRT for RTX engine SM89 fp16: building engine" in steps
        for record in records:
            engine = folder / record.file
            assert record.file == f"engines/trt-rtx-SM89-{record.precision}.engine"
            assert EngineRecord.read(engine.with_suffix(".json")) == record
            assert record.engine_sha256 == sha256_file(engine)
            assert record.graph_sha256 == sha256_file(folder / MODEL)
            assert record.engine_bytes == engine.stat().st_size > 100_000
            assert record.layers > 50
            assert str(record.profile) == "1:4:8"
            assert (record.reused, record.fusion) == (False, None)
        single, half, brain = records
        assert single.graph_max_rel < 1e-5 < half.graph_max_rel < brain.graph_max_rel < TOLERANCE["fp16"]
        assert open_bundle(folder).engine_records() == (brain, half, single)

    def test_what_was_written_is_read_back(self, folder: Path) -> None:
        plan = plan_engines("trt-rtx", ("SM86",), ("fp32",), "1:1:2")
        assert plan is not None
        record = build_engines(folder, plan)[0]
        library = RTX.library()
        assert record.library_version == library.__version__
        content = (folder / record.file).read_bytes()
        for part, complaint in ((content, "Cuda Runtime"), (content[:-1000], "Serialization"), (b"?" * 5000, "Serialization")):
            log, errors = error_log(library)
            # Without a GPU, reading a whole engine ends where its CUDA stream would be made, and a damaged one before.
            if library.Runtime(log).deserialize_cuda_engine(part) is None:
                assert complaint in errors[0]
            else:
                assert part is content

    def test_by_default_an_engine_is_portable(self, folder: Path) -> None:
        plan = plan_engines("trt-rtx", (), ("fp32",), "1:1:2")
        assert plan is not None
        assert build_engines(folder, plan)[0].capability == "portable"

    def test_a_graph_that_is_refused_quotes_the_compiler(self, folder: Path, tiny_low_rank: Decomposition) -> None:
        save_model(
            trace(tiny_low_rank.model, 23), folder / MODEL
        )  # one Attention node per block, which RTX has no fp32 kernel for
        plan = plan_engines("trt-rtx", ("SM89",), ("fp32",), "1:1:2")
        assert plan is not None
        with pytest.raises(VerdictError, match=r"TensorRT for RTX could not compile the graph: .*[Aa]ttention") as caught:
            build_engines(folder, plan)
        assert "--opset 20" in caught.value.hint
        assert not list(folder.glob("engines/*"))

    def test_a_file_that_is_no_graph_is_refused(self, folder: Path) -> None:
        (folder / "broken.onnx").write_bytes(b"\x08nothing")
        with pytest.raises(VerdictError, match="TensorRT for RTX could not read the graph: "):
            compile_engine(folder / "broken.onnx", RTX, "SM89", "fp32", BatchProfile(min=1, opt=1, max=1))

    def test_a_model_that_overflows_fp16_is_refused(self, folder: Path) -> None:
        model = onnx.load(folder / MODEL)
        bias = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [16])
        bias.CopyFrom(onnx.numpy_helper.from_array(np.full(16, 1e6, np.float32), bias.name))
        onnx.save(model, folder / MODEL)
        plan = plan_engines("trt-rtx", ("SM89",), ("fp16",), "1:1:2")
        assert plan is not None
        with pytest.raises(VerdictError, match="in fp16 the logits differ"):
            build_engines(folder, plan)

    def test_an_overflow_is_named_by_its_layer(self, tiny_bundle: Bundle, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "dense"))  # its weights are the same in every run
        _replace(folder, "blocks.1.mlp.fc1.bias", 6e4)
        plan = plan_engines("trt-rtx", ("SM89",), ("fp16",), "1:1:2")
        assert plan is not None
        with pytest.raises(VerdictError, match=r"at blocks\.1\.mlp\.fc2 reaches \S+, and fp16 ends at 6.55e\+04") as caught:
            build_engines(folder, plan)
        assert caught.value.hint == "use --engine-precision fp32 or bf16"

    def test_an_engine_compiled_before_is_reused(self, folder: Path) -> None:
        plan = plan_engines("trt-rtx", ("SM89",), ("fp32",), "1:2:3")
        assert plan is not None
        (first,) = build_engines(folder, plan)
        content = (folder / first.file).read_bytes()
        (folder / first.file).unlink()
        steps: list[str] = []
        (again,) = build_engines(folder, plan, steps.append)
        assert steps == ["checking the graph in fp32", "reuse TensorRT for RTX engine SM89 fp32 of an earlier export"]
        assert (folder / first.file).read_bytes() == content
        assert (first.reused, again) == (False, first.model_copy(update={"reused": True}))
        for other in (("SM86", "1:2:3"), ("SM89", "1:2:4")):
            changed = plan_engines("trt-rtx", other[:1], ("fp32",), other[1])
            assert changed is not None
            assert not build_engines(folder, changed)[0].reused
        _replace(folder, "head.bias", 1e-3)
        assert not build_engines(folder, plan)[0].reused

    @pytest.mark.parametrize("method", ["none", "svd"])
    def test_a_quantised_graph_is_compiled_as_it_is(
        self, method: str, tiny_bundle: Bundle, tiny_low_rank_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path / "cache"))  # an earlier test may have compiled this very graph
        source = tiny_bundle if method == "none" else tiny_low_rank_bundle
        folder = Path(shutil.copytree(source.folder, tmp_path / "int8"))
        _quantise(source, folder / MODEL)
        plan = plan_engines("trt-rtx", ("SM89",), (), "1:2:4", "int8")
        assert plan is not None
        (record,) = build_engines(folder, plan)
        assert record.file == "engines/trt-rtx-SM89-int8.engine"
        assert record.graph_sha256 == sha256_file(folder / MODEL) != sha256_file(source.model_path)
        assert 1e-4 < record.graph_max_rel < 0.2

    def test_an_fp8_graph_is_compiled_from_sm89_on(self, tmp_path: Path) -> None:
        path = _fp8_linear(tmp_path / "fp8.onnx")
        profile = BatchProfile(min=1, opt=1, max=2)
        assert len(compile_engine(path, RTX, "SM89", "fp8", profile).engine) > 10_000
        with pytest.raises(VerdictError, match="fp8"):  # the reason for the limit that plan_engines sets ahead
            compile_engine(path, RTX, "SM86", "fp8", profile)

    @pytest.mark.usefixtures("no_gpu")
    def test_the_current_gpu_must_be_there(self) -> None:
        with pytest.raises(MissingDependencyError, match="no NVIDIA driver") as caught:
            plan_engines("trt-rtx", ("CURRENT",), ("fp32",), "1:1:2")
        assert "--capability portable or SM75" in caught.value.hint


class TestPlans:
    def test_none_is_no_plan(self) -> None:
        assert plan_engines("none", (), ("fp32",), "1:1:1") is None

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("trtexec", (), ("fp32",), "1:1:1"), "unknown engine 'trtexec'"),
            (("trt-rtx", ("SM90",), ("fp32",), "1:1:1"), r"does not support SM90 \(H100, H200\)"),
            (("trt-rtx", ("SM42",), ("fp32",), "1:1:1"), "unknown capability 'SM42'"),
            (("trt", ("SM89",), ("fp32",), "1:1:1"), "compiles only for the GPU that is there"),
            (("trt-rtx", ("SM89",), ("int4",), "1:1:1"), "unknown engine precision 'int4'"),
            (("trt-rtx", ("SM89",), ("fp32",), "8:4:1"), "MIN <= OPT <= MAX, got '8:4:1'"),
            (("trt-rtx", ("SM89",), ("fp32",), "0:1:1"), "got '0:1:1'"),
            (("trt-rtx", ("SM89",), ("fp32",), "16"), "got '16'"),
            (("trt-rtx", ("SM89",), ("int8",), "1:1:1"), "precision fp32 makes engines of fp32, fp16, bf16, got 'int8'"),
            (("trt-rtx", ("SM89",), ("fp16",), "1:1:1", "int8"), "precision int8 makes engines of int8, got 'fp16'"),
            (("trt-rtx", ("SM89",), (), "1:1:1", "int8-dynamic"), "no engine can be compiled from a graph of precision int8-dyn"),
            (("trt-rtx", ("SM75",), ("bf16",), "1:1:1"), "GPUs of capability SM75 have no bf16"),
            (("trt-rtx", ("SM86",), (), "1:1:1", "fp8"), "GPUs of capability SM86 have no fp8"),
            (
                ("trt-rtx", (), (), "1:1:1", "fp32", BuildOptions(level=2)),
                "for RTX has no --builder-optimization-level: it times",
            ),
            (("trt-rtx", (), (), "1:1:1", "fp32", BuildOptions(version_compatible=True)), "has no --version-compatible"),
            (("trt-rtx", (), (), "1:1:1", "fp32", BuildOptions(hardware_compatible=True)), "has no --hardware-compatible"),
            (("trt", (), (), "1:1:1", "fp32", BuildOptions(level=6)), "optimization level from 0 to 5, got 6"),
        ],
    )
    def test_bad_requests_say_what_was_expected(self, arguments: tuple[Any, ...], message: str) -> None:
        with pytest.raises(InputError, match=message):
            plan_engines(*arguments)

    @pytest.mark.usefixtures("no_gpu", "no_libraries")
    def test_tensorrt_says_all_that_is_missing(self) -> None:
        with pytest.raises(MissingDependencyError) as caught:
            plan_engines("trt", (), ("fp32",), "1:1:1")
        assert "TensorRT is not installed; it needs an NVIDIA GPU" in caught.value.message
        assert "pip install 'vitdeploy[gpu]'" in caught.value.hint
        assert caught.value.exit_code == 3

    @pytest.mark.usefixtures("no_gpu", "no_libraries")
    def test_rtx_needs_only_its_package_to_compile(self) -> None:
        with pytest.raises(MissingDependencyError, match=r"TensorRT for RTX is not installed$") as caught:
            plan_engines("trt-rtx", ("SM89",), ("fp32",), "1:1:1")
        assert caught.value.hint == "pip install 'vitdeploy[rtx]'"

    def test_the_flavours_differ_where_they_should(self) -> None:
        assert (TENSORRT.name, RTX.name) == ("trt", "trt-rtx")
        assert RTX.builds_without_gpu
        assert not TENSORRT.builds_without_gpu
