"""Registry of quantisers by the name of their runtime, imported on first use."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from export.precision.runtimes.base import Quantizer
from vitnla.common.errors import MissingDependencyError
from vitnla.common.plugins import load_plugin, plugins
from vitnla.common.registry import Registry

GROUP = "vitdeploy.quantizers"
_BUILT_IN = {
    "ort": "export.precision.runtimes.ort:OrtQuantizer",
    "openvino": "export.precision.runtimes.openvino_nncf:NncfQuantizer",
    "trt": "export.precision.runtimes.tensorrt_qdq:TensorRtQuantizer",
    "trt-rtx": "export.precision.runtimes.tensorrt_qdq:TensorRtQuantizer",
}


def quantizer(runtime: str) -> Quantizer:
    """Return a new quantiser by the name of its runtime.

    Raises:
        InputError: the runtime has no quantiser; lists those that have.
        MissingDependencyError: the module that defines it cannot be imported.
        ValueError: two packages register one for the same runtime.
    """
    made: Quantizer = load_plugin("quantiser for runtime", _registry()[runtime])()
    return made


def known_quantizers() -> dict[str, Quantizer]:
    """Return runtime -> quantiser, built-in ones first; those whose module cannot be imported are left out."""
    found = {}
    for runtime in _registry():
        try:
            found[runtime] = quantizer(runtime)
        except MissingDependencyError:
            continue  # whoever asks for it by name is told why
    return found


def _registry() -> Registry[EntryPoint]:
    return plugins("quantiser for runtime", GROUP, _BUILT_IN)
