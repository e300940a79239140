"""What TensorRT is told, on a stand-in for it with the documented names: no test machine has TensorRT itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from export.engine.cache import engine_key
from export.engine.compiler import BuildOptions, compile_engine
from runtime.bundle.engines import BatchProfile, LayerReport
from runtime.runners.trt.library import RTX, TENSORRT, Flavor
from vitnla.common.errors import VerdictError

PROFILE = BatchProfile(min=1, opt=2, max=4)


class Library(SimpleNamespace):
    """The module, the builder, its network, its config, the parser and the runtime, all in one."""

    __version__ = "10.0"

    class ILogger:
        Severity = SimpleNamespace(ERROR=1, INTERNAL_ERROR=0)

    class IProgressMonitor:
        pass

    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    ProfilingVerbosity = SimpleNamespace(DETAILED=2)
    BuilderFlag = SimpleNamespace(TF32="TF32", VERSION_COMPATIBLE="VERSION_COMPATIBLE")
    HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="AMPERE_PLUS")
    LayerInformationFormat = SimpleNamespace(JSON=1)
    num_layers = 9

    def __init__(self) -> None:
        super().__init__(flags={"TF32"}, started_from=[], plan=b"plan")

    def __call__(self, *arguments: Any) -> Library:
        return self

    Builder = OnnxParser = Runtime = create_builder_config = create_optimization_profile = create_engine_inspector = __call__
    deserialize_cuda_engine = get_timing_cache = __call__

    def create_network(self, flags: int) -> Library:
        assert flags == 1 << self.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return self

    def parse_from_file(self, path: str) -> bool:
        return Path(path).is_file()

    def get_input(self, index: int) -> Any:
        return SimpleNamespace(shape=(-1, 3, 8, 8))

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes = (name, *shapes)

    def add_optimization_profile(self, profile: Any) -> None:
        pass

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.remove(flag)

    def create_timing_cache(self, content: bytes) -> str:
        self.started_from.append(content)
        return "timings"

    def set_timing_cache(self, cache: str, ignore_mismatch: bool) -> bool:
        assert (cache, ignore_mismatch) == ("timings", False)
        return True

    def serialize(self) -> bytes:
        return b"timed"

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        self.progress_monitor.phase_start("Building engine", None, 6)
        assert self.progress_monitor.step_complete("Building engine", 0)
        self.progress_monitor.phase_finish("Building engine")
        return self.plan

    def get_engine_information(self, form: int) -> str:
        return '{"Layers": ["_gemm_mha_v2"]}'


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Library:
    made = Library()
    monkeypatch.setattr(Flavor, "library", lambda self: made)
    monkeypatch.setattr("runtime.runners.trt.cuda.gpu_name", lambda: "A GPU")
    monkeypatch.setattr("export.engine.cache.gpu_name", lambda: "A GPU")
    monkeypatch.setenv("VITDEPLOY_CACHE", str(tmp_path / "cache"))
    return made


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    return tmp_path / "model.onnx"


def test_tensorrt_is_told_the_options(library: Library, graph: Path) -> None:
    steps: list[str] = []
    options = BuildOptions(level=5, version_compatible=True, hardware_compatible=True)
    options.check(TENSORRT)
    compiled = compile_engine(graph, TENSORRT, "CURRENT", "fp16", PROFILE, options, steps.append)
    assert (compiled.engine, compiled.layers) == (b"plan", 9)
    assert compiled.fusion == LayerReport(layers=1, fused_attentions=1, formats={})
    assert library.flags == {"TF32", "VERSION_COMPATIBLE"}
    assert (library.builder_optimization_level, library.hardware_compatibility_level) == (5, "AMPERE_PLUS")
    assert library.profiling_verbosity == library.ProfilingVerbosity.DETAILED
    assert library.shapes == ("images", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))
    assert steps == ["building engine"]


def test_by_default_only_tf32_is_touched(library: Library, graph: Path) -> None:
    compile_engine(graph, TENSORRT, "CURRENT", "fp32", PROFILE)
    assert library.flags == set()
    assert not hasattr(library, "builder_optimization_level")
    assert not hasattr(library, "hardware_compatibility_level")


def test_timings_are_kept_for_tensorrt_alone(library: Library, graph: Path) -> None:
    for _ in range(2):
        compile_engine(graph, TENSORRT, "CURRENT", "fp32", PROFILE)
        library.flags.add("TF32")
    assert library.started_from == [b"", b"timed"]
    compile_engine(graph, RTX, "portable", "fp32", PROFILE)  # a timing cache would ask for the GPU
    assert len(library.started_from) == 2


def test_a_build_that_fails_keeps_no_timings(library: Library, graph: Path, tmp_path: Path) -> None:
    library.plan = None
    with pytest.raises(VerdictError, match="TensorRT could not compile the graph: no reason given"):
        compile_engine(graph, TENSORRT, "CURRENT", "fp32", PROFILE)
    assert not list((tmp_path / "cache").rglob("*timing.cache"))


@pytest.mark.usefixtures("library")
def test_the_key_holds_all_that_an_engine_depends_on(graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(options: BuildOptions = BuildOptions(), flavor: Flavor = TENSORRT) -> str:  # noqa: B008 - it is frozen
        return engine_key(graph, flavor, "SM89", "fp32", PROFILE, options)

    keys = [key(), key(flavor=RTX), key(BuildOptions(level=3)), key(BuildOptions(version_compatible=True))]
    keys.append(key(BuildOptions(hardware_compatible=True)))
    assert key() == keys[0]
    monkeypatch.setattr("export.engine.cache.gpu_name", lambda: "Another GPU")
    assert key(flavor=RTX) == keys[1]
    keys.append(key())
    graph.with_name("model.onnx.data").write_bytes(b"weights beside it")
    keys.append(key())
    graph.write_bytes(b"another graph")
    keys.append(key())
    monkeypatch.setattr(Library, "__version__", "10.1")
    keys.append(key())
    assert len(set(keys)) == len(keys)
