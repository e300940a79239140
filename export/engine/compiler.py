"""Compilation of an ONNX file to an engine, by TensorRT or TensorRT for RTX."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.graph.trace import INPUT
from runtime.bundle.engines import PORTABLE, BatchProfile, EnginePrecision, LayerReport
from runtime.runners.trt.inspector import layer_report
from runtime.runners.trt.library import Flavor, error_log
from vitnla.common.cache import cache_key, find_entry, new_entry
from vitnla.common.errors import InputError, VerdictError

MAX_LEVEL = 5
_TIMING, _TIMING_FILE = "trt-timing", "timing.cache"


@dataclass(frozen=True)
class BuildOptions:
    """Optimisation level and compatibility of an engine.

    Args:
        level: 0 to 5, how long TensorRT searches for kernels; `None` is its default.
        version_compatible: later versions of the library can load the engine.
        hardware_compatible: GPUs of other capabilities, from Ampere on, can load the engine.
    """

    level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def check(self, flavor: Flavor) -> None:
        """Check that the library supports the options.

        TensorRT for RTX 1.7 accepts a level and a hardware compatibility in its API, and compiles the same bytes for all of them.

        Raises:
            InputError: names the option.
        """
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            raise InputError(f"expected a builder optimization level from 0 to {MAX_LEVEL}, got {self.level}", "the default is 3")
        if flavor.times_kernels:
            return
        for asked, option, why in (
            (self.level is not None, "--builder-optimization-level", "it times no kernels, and compiles the same at every level"),
            (self.version_compatible, "--version-compatible", "it comes without the lean runtime that such an engine holds"),
            (self.hardware_compatible, "--hardware-compatible", "its default engine is portable already: leave --capability out"),
        ):
            if asked:
                raise InputError(f"{flavor.title} has no {option}: {why}", f"leave {option} out, or use --engine trt")


DEFAULTS = BuildOptions()


@dataclass(frozen=True)
class Compiled:
    """An engine, the layers of its network before fusion, and those after it if a GPU could load the engine."""

    engine: bytes
    layers: int
    fusion: LayerReport | None


def compile_engine(
    graph: Path, flavor: Flavor, capability: str, precision: EnginePrecision, profile: BatchProfile,
    options: BuildOptions = DEFAULTS, on_step: Callable[[str], None] = lambda step: None,
) -> Compiled:  # fmt: skip
    """Compile an ONNX file to an engine with the types of its graph.

    Args:
        graph: the file.
        flavor: the library.
        capability: of the GPU, or `portable`; only TensorRT for RTX uses it.
        precision: name of the engine's precision; `fp32` disables faster formats such as TF32.
        profile: batch sizes.
        options: see `BuildOptions`.
        on_step: called with each of the compiler's phases.

    Raises:
        VerdictError: the parser or the compiler refuses the graph.
    """
    library = flavor.library()
    log, errors = error_log(library)
    builder = library.Builder(log)
    # On TensorRT 10 the flag must be set; 11 and TensorRT for RTX know no other kind of network.
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        raise _refused(flavor, "read", errors)
    config = builder.create_builder_config()
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # else the inspector knows nothing but names
    config.progress_monitor = monitor = _monitor(library, on_step)  # the library does not own it: it must outlive the build
    _set_options(library, config, flavor, capability, precision, options)
    config.add_optimization_profile(_profile(builder, network, profile))
    with _timing_cache(flavor, config):
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise _refused(flavor, "compile", errors)
    del monitor
    engine = bytes(serialized)
    return Compiled(engine, network.num_layers, _inspect(library, log, engine, errors) if flavor.times_kernels else None)


def _set_options(
    library: Any, config: Any, flavor: Flavor, capability: str, precision: EnginePrecision, options: BuildOptions
) -> None:
    if precision == "fp32":
        config.clear_flag(library.BuilderFlag.TF32)  # on by default; its 10-bit mantissa would not be fp32
    if flavor.builds_without_gpu and capability != PORTABLE:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(library.ComputeCapability, capability), 0)
    if options.level is not None:
        config.builder_optimization_level = options.level
    if options.version_compatible:
        config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = library.HardwareCompatibilityLevel.AMPERE_PLUS


def _profile(builder: Any, network: Any, profile: BatchProfile) -> Any:
    made = builder.create_optimization_profile()
    image = tuple(network.get_input(0).shape)[1:]
    made.set_shape(INPUT, (profile.min, *image), (profile.opt, *image), (profile.max, *image))
    return made


def _monitor(library: Any, on_step: Callable[[str], None]) -> Any:
    """Return a progress monitor that reports each kind of phase when it first starts; called from the library's threads too."""
    seen: set[str] = set()

    class Monitor(library.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            library.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if phase_name in seen:
                return  # some come once per layer
            seen.add(phase_name)
            on_step(f"{phase_name[:1].lower()}{phase_name[1:]}")

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            pass  # the next phase's start says as much

    return Monitor()


@contextmanager
def _timing_cache(flavor: Flavor, config: Any) -> Iterator[None]:
    """Load the kernel timings of earlier builds, and store those of this one; not for TensorRT for RTX, which needs a GPU for it."""
    if not flavor.times_kernels:
        yield
        return
    from runtime.runners.trt.cuda import gpu_name

    key = cache_key(flavor.library().__version__, gpu_name())
    entry = find_entry(_TIMING, key)
    timings = config.create_timing_cache((entry / _TIMING_FILE).read_bytes() if entry else b"")
    config.set_timing_cache(timings, ignore_mismatch=False)
    yield
    with new_entry(_TIMING, key) as folder:
        (folder / _TIMING_FILE).write_bytes(bytes(config.get_timing_cache().serialize()))


def _inspect(library: Any, log: Any, engine: bytes, errors: list[str]) -> LayerReport | None:
    loaded = library.Runtime(log).deserialize_cuda_engine(engine)
    if loaded is None:
        raise VerdictError(
            f"the new engine cannot be loaded: {' '.join(errors[:1])}", "see nvidia-smi for the GPU's state and free memory"
        )
    return layer_report(library, loaded)


def _refused(flavor: Flavor, verb: str, errors: list[str]) -> VerdictError:
    said = " ".join((errors or ["no reason given"])[0].split())
    return VerdictError(f"{flavor.title} could not {verb} the graph: {said}", "export with --opset 20, or without --engine")
