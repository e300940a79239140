"""ONNX Runtime on the CPU, on CUDA, or through its TensorRT provider."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from runtime.bundle.schema import Bundle, Precision
from runtime.runners.availability import Availability
from runtime.runners.base import Images, Logits, RunOptions, Session
from runtime.runners.ort_options import new_session_options
from runtime.runners.traits import Traits
from vitnla.common.errors import InputError, MissingDependencyError, unknown_name

if TYPE_CHECKING:
    import onnxruntime

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
_ATTENTION = {"Attention", "GroupQueryAttention", "MultiHeadAttention", "PackedAttention", "QAttention"}
_CPU_REFUSED = "fallback to CPU EP has been explicitly disabled"


class OrtRunner:
    """ONNX Runtime, from either of its wheels. Only one may be installed: together they hide CUDA (onnxruntime#26996)."""

    name = "ort"
    traits = Traits(
        packages=("onnxruntime", "onnxruntime-gpu"), export_precisions=("fp32", "fp16", "int8", "int8-dynamic"),
        timed_precisions=("fp32", "int8"), providers=tuple(_PROVIDERS), runs_graph=True, tunable=True,
    )  # fmt: skip

    def availability(self) -> Availability:
        """Return whether `onnxruntime` is installed; which providers work is known only at load."""
        if importlib.util.find_spec("onnxruntime") is None:
            remedy = "pip install onnxruntime (or onnxruntime-gpu, never both)"
            return Availability(False, "the package onnxruntime is not installed", remedy)
        return Availability(True)

    def imports(self) -> None:
        """Import ONNX Runtime."""
        import onnxruntime  # noqa: F401

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        """Open `model.onnx` with the requested provider, without fallback to another.

        Raises:
            InputError: the provider is unknown, or the graph cannot be loaded.
            MissingDependencyError: the provider is not in this build, or did not become active.
        """
        self.availability().require(self.name)
        if options.provider not in _PROVIDERS:
            raise unknown_name("provider", options.provider, _PROVIDERS)
        check_provider(options.provider)
        return OrtSession(self.name, bundle, options)

    def open_graph(
        self, graph: bytes, feed: Mapping[str, NDArray[np.float32]], precision: Precision, threads: int
    ) -> Callable[[], object]:
        """See `GraphRunner`. The graph's own types are its precision."""
        import onnxruntime

        session = onnxruntime.InferenceSession(graph, session_options(threads), providers=["CPUExecutionProvider"])
        return lambda: session.run(None, dict(feed))


def installed_providers() -> tuple[str, ...]:
    """Return the execution providers that the installed wheel lists, loadable or not; none without a wheel."""
    if importlib.util.find_spec("onnxruntime") is None:
        return ()
    import onnxruntime

    return tuple(onnxruntime.get_available_providers())


class OrtSession(Session):
    """An `onnxruntime.InferenceSession`. On a GPU, `run` includes the copies to the device and back."""

    def __init__(
        self, runner: str, bundle: Bundle, options: RunOptions, provider_options: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(runner, bundle)
        self._provider_options = dict(provider_options or {})
        self._bundle = bundle
        self._options = options
        self._input = bundle.manifest.input.name
        self._all_on_provider = True
        self._session = self._open()
        wanted, active = _PROVIDERS[options.provider][0], self._session.get_providers()
        if wanted not in active:
            hint = "its libraries did not load: pip install 'onnxruntime-gpu[cuda,cudnn]', or use --provider cpu"
            raise MissingDependencyError(f"ort: asked for {wanted}, got {', '.join(active)}", hint)

    def _open(self) -> onnxruntime.InferenceSession:
        strict = session_options(self._options.threads)
        if self._options.provider == "cpu":
            return self._create(strict)
        strict.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            return self._create(strict)
        except InputError as error:
            # ONNX Runtime computes shapes on the CPU on purpose, so a graph with a dynamic batch may be refused. It runs;
            # the facts say so.
            if _CPU_REFUSED not in str(error):
                raise
            self._all_on_provider = False
            return self._create(session_options(self._options.threads))

    def _create(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        import onnxruntime

        try:
            first, *others = _PROVIDERS[self._options.provider]
            providers = [(first, self._provider_options), *others]
            return onnxruntime.InferenceSession(self._bundle.model_path, options, providers=providers, enable_fallback=0)
        except Exception as error:  # its exceptions share no base class below Exception
            hint = "check the bundle, the provider and the package's version"
            raise InputError(f"ort: cannot load {self._bundle.model_path}: {error}", hint) from error

    def _infer(self, images: Images) -> Logits:
        return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)

    def bind(self, images: Images) -> tuple[Callable[[], None], onnxruntime.OrtValue]:
        """Return a function that runs the model on images on the provider's device, and the logits [B, classes] that it fills.

        It enqueues and does not wait for a GPU. Its stream is the provider option `user_compute_stream`, else its own.
        """
        import onnxruntime

        device = "cpu" if self._options.provider == "cpu" else "cuda"
        given = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images), device, 0)
        classes, output = len(self._bundle.manifest.labels), self._bundle.manifest.output.name
        made = onnxruntime.OrtValue.ortvalue_from_shape_and_type([len(images), classes], np.float32, device, 0)
        binding, options = self._session.io_binding(), onnxruntime.RunOptions()
        binding.bind_ortvalue_input(self._input, given)
        binding.bind_ortvalue_output(output, made)
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return lambda: self._session.run_with_iobinding(binding, options), made

    def facts(self) -> dict[str, Any]:
        """Return version, providers, threads and the number of fused attentions."""
        import onnxruntime

        options = self._session.get_session_options()
        return {
            "version": onnxruntime.__version__,
            "device": "cpu" if self._options.provider == "cpu" else "cuda:0",
            "precision": self._bundle.manifest.precision,
            "threads": options.intra_op_num_threads,
            "providers": self._session.get_providers(),
            "all_nodes_on_provider": self._all_on_provider,
            "graph_optimization_level": options.graph_optimization_level.name,
            "fused_attention": None if self._options.provider == "tensorrt" else self._fused_attention(),
            "thread_spinning": "stops after each run",
            "io": "host arrays, copies inside run()",
        }

    def _fused_attention(self) -> int:
        """Count attention operators in the graph optimised by ONNX Runtime, which it returns only as a file."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "optimized.onnx"
            options = session_options(self._options.threads)
            options.optimized_model_filepath = str(path)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights.bin")
            self._create(options)
            graph = onnx.load(path, load_external_data=False).graph
        return sum(node.op_type in _ATTENTION for node in graph.node)


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Return the options of every session: all optimisations, `threads` threads, no spinning while idle."""
    import onnxruntime

    options = new_session_options()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # By default its threads go on spinning after a run (over a second on some machines), on the cores of the next cell measured.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def check_provider(provider: str) -> None:
    """Load a provider's libraries, and check that this build has the provider.

    Raises:
        MissingDependencyError: this build does not have it.
    """
    import onnxruntime

    if provider != "cpu" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    wanted = _PROVIDERS[provider][0]
    if wanted not in onnxruntime.get_available_providers():
        raise MissingDependencyError(f"runtime 'ort' cannot run here: this onnxruntime has no {wanted}", _provider_remedy())


def _provider_remedy() -> str:
    remedy = "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu; it needs an NVIDIA GPU"
    if _installed("onnxruntime") and _installed("onnxruntime-gpu"):
        return f"both onnxruntime wheels are installed, and the CPU one hides CUDA: {remedy}"
    return remedy


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
