"""Choosing and running engines, on a stand-in for the library and the GPU: no test machine has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import runtime.runners.trt.runner as trt
from runtime.bench.plan import BenchPlan, Target
from runtime.bundle.engines import BatchProfile, EngineRecord, LayerReport
from runtime.bundle.schema import Bundle
from runtime.runners.availability import Availability
from runtime.runners.base import RunOptions
from runtime.runners.trt.cuda import call, cuda_availability
from runtime.runners.trt.inspector import read_layers
from runtime.runners.trt.library import RTX, TENSORRT, Flavor
from runtime.runners.trt.runner import TrtRtxRunner, TrtRunner, TrtSession, find_engine
from vitnla.common.errors import InputError, MissingDependencyError


def record(capability: str = "SM89", precision: str = "fp32", runtime: str = "trt-rtx", largest: int = 8) -> EngineRecord:
    return EngineRecord.model_validate(
        {
            "file": f"engines/{runtime}-{capability}-{precision}.engine", "runtime": runtime, "library_version": "1.0",
            "capability": capability, "precision": precision, "profile": BatchProfile(min=1, opt=1, max=largest), "layers": 1,
            "build_seconds": 1.0, "graph_sha256": "0", "graph_max_rel": 0.0, "engine_sha256": "0", "engine_bytes": 1,
        }
    )  # fmt: skip


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    return Bundle(Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle")), tiny_bundle.manifest)


def add(bundle: Bundle, *records: EngineRecord) -> None:
    for one in records:
        path = bundle.folder / one.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bundle.model_path.read_bytes())
        path.with_suffix(".json").write_text(one.to_json())


@pytest.mark.parametrize(
    ("capability", "gpu", "fits"),
    [
        ("SM89", (8, 9), True), ("SM89", (8, 6), False), ("SM120", (12, 0), True), ("portable", (8, 6), True),
        ("portable", (12, 1), True), ("portable", (7, 5), False), ("portable", (9, 0), False), ("portable", (10, 0), False),
    ],
)  # fmt: skip
def test_an_engine_runs_on_its_own_gpu(capability: str, gpu: tuple[int, int], fits: bool) -> None:
    assert record(capability).runs_on(gpu) is fits


def test_precision_and_compatibility_decide_too() -> None:
    assert [record("portable", "fp8").runs_on(gpu) for gpu in ((8, 6), (8, 9), (12, 0))] == [False, True, True]
    wide = record("SM80", runtime="trt").model_copy(update={"hardware_compatible": True})
    assert [wide.runs_on(gpu) for gpu in ((7, 5), (8, 9), (9, 0))] == [False, True, True]


def test_the_bundles_precision_and_the_very_gpu_go_first(bundle: Bundle) -> None:
    add(bundle, record("portable"), record("SM89", "fp16"), record("SM89", runtime="trt"))
    assert find_engine(bundle, RTX, (8, 9), 1) == record("portable")
    add(bundle, record("SM89"))
    assert find_engine(bundle, RTX, (8, 9), 1) == record("SM89")
    assert find_engine(bundle, RTX, (8, 6), 1) == record("portable")


def test_no_fitting_engine_lists_those_there_are(bundle: Bundle) -> None:
    with pytest.raises(MissingDependencyError, match="engine for SM89 and batch 1; it holds no engine"):
        find_engine(bundle, RTX, (8, 9), 1)
    add(bundle, record("SM86"))
    with pytest.raises(MissingDependencyError, match="it holds trt-rtx SM86 fp32 batch 1:1:8") as caught:
        find_engine(bundle, RTX, (8, 9), 1)
    assert "vitdeploy export --engine trt-rtx" in caught.value.hint
    with pytest.raises(MissingDependencyError, match="batch 9"):
        find_engine(bundle, RTX, (8, 6), 9)


class Device:
    """Device memory by address, and a library whose engines are ONNX files run on the CPU."""

    __version__ = "1.0"

    class ILogger:
        """What the real one's subclasses rely on."""

        class Severity:
            ERROR, INTERNAL_ERROR = 1, 0

    def __init__(self) -> None:
        self.memory: dict[int, np.ndarray] = {}
        self.handle, self.addresses, self.shape = 7, {}, ()
        self.num_layers, self.device_memory_size_v2 = 3, 1 << 20
        self.closed = False

    # The library.
    def Runtime(self, log: Any) -> Device:
        return self

    def deserialize_cuda_engine(self, content: bytes) -> Device | None:
        if content == b"damaged":
            return None
        self.session = onnxruntime.InferenceSession(content)
        return self

    LayerInformationFormat = type("LayerInformationFormat", (), {"JSON": 1})

    def create_engine_inspector(self) -> Device:
        return self

    def get_engine_information(self, form: int) -> str:
        return '{"Layers": [{"Name": "mha", "Outputs": [{"Format/Datatype": "Half"}]}]}'

    def create_execution_context(self) -> Device:
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def execute_async_v3(self, stream: int) -> bool:
        images = self.memory[self.addresses["images"]]
        assert (stream, images.shape) == (self.handle, self.shape)
        self.memory[self.addresses["logits"]] = self.session.run(None, {"images": images})[0]
        return True

    # The stream.
    def allocate(self, size: int) -> int:
        self.memory[len(self.memory)] = np.empty(size, np.uint8)
        return len(self.memory) - 1

    def upload(self, source: np.ndarray, address: int) -> None:
        assert source.nbytes <= self.memory[address].nbytes or address in self.addresses.values()
        self.memory[address] = source.copy()

    def download(self, address: int, shape: tuple[int, ...]) -> np.ndarray:
        assert self.memory[address].shape == shape
        return self.memory[address]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    device = Device()
    monkeypatch.setattr(Flavor, "library", lambda self: device)
    monkeypatch.setattr(trt, "Stream", lambda: device)
    monkeypatch.setattr(trt, "compute_capability", lambda: (8, 9))
    monkeypatch.setattr(Flavor, "can_run", lambda self: Availability(True))
    return device


def test_a_session_moves_images_in_and_logits_out(bundle: Bundle, device: Device) -> None:
    add(bundle, record())
    session = TrtRtxRunner().load(bundle, RunOptions(threads=1, batch=8))
    images, logits = bundle.reference()
    for batch in (8, 1, 3):
        np.testing.assert_allclose(session.run(images[:batch]), logits[:batch], atol=1e-4)
    facts = session.facts()
    assert (facts["engine"], facts["precision"], facts["engine_layers"]) == ("engines/trt-rtx-SM89-fp32.engine", "fp32", 3)
    assert (facts["fused_attention"], facts["layer_formats"]) == (1, {"Half": 1})
    with pytest.raises(InputError, match="batches of 1 to 8, got 9"):
        session.run(np.concatenate([images, images[:1]]))
    session.close()
    assert device.closed


def test_an_engine_of_another_version_says_so(bundle: Bundle, device: Device) -> None:
    add(bundle, record())
    (bundle.folder / record().file).write_bytes(b"damaged")
    for built, reason in (
        ({"library_version": "0.9"}, r"it was built by TensorRT for RTX 0\.9, and here is 1\.0"),
        ({"capability": "SM86"}, "it was built for SM86, and the GPU here is SM89"),
        ({}, "no reason given"),
    ):
        with pytest.raises(InputError, match=rf"engine cannot be loaded: {reason}") as caught:
            TrtSession("trt-rtx", bundle, RTX, record().model_copy(update=built))
        assert "export it again here" in caught.value.hint


def test_the_inspector_is_read() -> None:
    layers = [
        {"Name": "conv", "LayerType": "CaskConvolution", "Outputs": [{"Name": "a", "Format/Datatype": "Half"}]},
        {"Name": "_gemm_mha_v2_0x1", "LayerType": "kgen", "Outputs": [{"Name": "b", "Format/Datatype": "Half"}]},
        {"Name": "norm", "LayerType": "kgen", "Outputs": [{"Name": "c", "Format/Datatype": "Float"}]},
    ]
    expected = LayerReport(layers=3, fused_attentions=1, formats={"Float": 1, "Half": 2})
    assert read_layers(json.dumps({"Layers": layers, "Bindings": []})) == expected
    assert read_layers('{"Layers": ["conv", "_gemm_mha_v2_0x1"]}') == LayerReport(layers=2, fused_attentions=1, formats={})
    assert read_layers("no engine") is read_layers("[]") is None


class TestTargets:
    def test_each_engine_precision_is_a_cell_of_its_own(self, bundle: Bundle) -> None:
        add(
            bundle,
            record(),
            record(precision="int8"),
            record(precision="fp16"),
            record("SM86", "fp16"),
            record(precision="bf16", runtime="trt"),
        )
        plan = BenchPlan((bundle,), (Target("trt-rtx"), Target("ort")), (1, 4), threads=1)
        labels = [case.target.label for case in plan.cases()]
        assert labels == ["trt-rtx:fp32", "trt-rtx:fp16", "trt-rtx:int8", "ort"] * 2
        case = plan.cases()[1]
        assert (plan.options(case).precision, case.target.precision_on(bundle)) == ("fp16", "fp16")
        assert Target("trt-rtx", precision="bf16").on(bundle) == (Target("trt-rtx", precision="bf16"),)
        assert find_engine(bundle, RTX, (8, 9), 1, "fp16") == record(precision="fp16")
        with pytest.raises(MissingDependencyError, match="no TensorRT for RTX engine of bf16 for SM89") as caught:
            find_engine(bundle, RTX, (8, 9), 1, "bf16")
        assert "--engine-precision bf16" in caught.value.hint

    def test_without_engines_the_target_stays(self, bundle: Bundle) -> None:
        assert Target("trt").on(bundle) == (Target("trt"),)

    def test_a_target_is_read(self) -> None:
        assert Target.parse("trt:fp16") == Target("trt", precision="fp16")
        assert Target.parse("ort", "cuda") == Target("ort", "cuda")
        assert Target.parse("openvino", "cuda") == Target("openvino")
        with pytest.raises(InputError, match="unknown precision of trt 'int4'"):
            Target.parse("trt:int4")
        with pytest.raises(InputError, match="runtime 'ort' takes no precision, got 'ort:fp16'"):
            Target.parse("ort:fp16")


def test_trt_takes_the_library_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for installed, expected in (({"trt", "trt-rtx"}, "trt"), ({"trt-rtx"}, "trt-rtx"), (set(), "trt")):
        monkeypatch.setattr(Flavor, "installed", property(lambda self, known=installed: self.name in known))
        assert TrtRunner().flavor.name == expected
        assert TrtRtxRunner().flavor is RTX


@pytest.mark.skipif(cuda_availability().ok, reason="this machine has a GPU")
@pytest.mark.parametrize("runner", [TrtRunner(), TrtRtxRunner()])
def test_without_a_gpu_the_runners_explain_themselves(runner: TrtRunner, bundle: Bundle) -> None:
    assert not runner.availability().ok
    with pytest.raises(MissingDependencyError, match=f"runtime '{runner.name}' cannot run here: .*") as caught:
        runner.load(bundle, RunOptions(threads=1))
    assert "it needs an NVIDIA GPU" in caught.value.message
    assert "use a machine with an NVIDIA GPU" in caught.value.hint


@pytest.mark.skipif(cuda_availability().ok or TENSORRT.installed, reason="TensorRT or a GPU is here")
def test_trt_says_what_to_install_also_where_only_rtx_is_there() -> None:
    found = TrtRunner().availability()
    assert found.reason.startswith("TensorRT is not installed; it needs an NVIDIA GPU")
    assert found.remedy.startswith("pip install 'vitdeploy[gpu]'")


def test_a_failed_cuda_call_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Error:
        name = "cudaErrorMemoryAllocation"

    class Cudart:
        class cudaError_t:
            cudaSuccess = "ok"

    monkeypatch.setattr("runtime.runners.trt.cuda._cudart", lambda: Cudart)
    assert call(("ok", 5)) == 5
    assert call(("ok",)) is None
    with pytest.raises(MissingDependencyError, match="cudaErrorMemoryAllocation"):
        call((Error(), None))
