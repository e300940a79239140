"""Cache of compiled engines: the same graph for the same target is not compiled twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from export.engine.compiler import BuildOptions, Compiled
from runtime.bundle.engines import BatchProfile, EnginePrecision, LayerReport
from runtime.runners.trt.cuda import gpu_name
from runtime.runners.trt.library import Flavor
from vitnla.common.cache import cache_key, find_entry, new_entry
from vitnla.common.files import sha256_file
from vitnla.common.schema import Record

_KIND, _ENGINE, _ABOUT = "engines", "engine", "about.json"


class Built(Record):
    """Metadata of a compiled engine."""

    layers: int
    build_seconds: float
    fusion: LayerReport | None


def engine_key(
    graph: Path, flavor: Flavor, capability: str, precision: EnginePrecision, profile: BatchProfile, options: BuildOptions
) -> str:
    """Return the cache key of all that an engine depends on; for TensorRT also the GPU that its kernels were timed on."""
    weights = graph.with_name(f"{graph.name}.data")
    hashes = [sha256_file(file) for file in (graph, weights) if file.is_file()]
    gpu = gpu_name() if flavor.times_kernels else ""
    flags = (str(options.level), str(options.version_compatible), str(options.hardware_compatible))
    return cache_key(flavor.name, flavor.library().__version__, capability, gpu, precision, str(profile), *flags, *hashes)


def cached_engine(key: str) -> tuple[bytes, Built] | None:
    """Return an engine from the cache; `None` if it has none of this key."""
    entry = find_entry(_KIND, key)
    return None if entry is None else ((entry / _ENGINE).read_bytes(), Built.read(entry / _ABOUT))


def compile_into_cache(key: str, compile_it: Callable[[], Compiled], seconds: Callable[[], float]) -> tuple[bytes, Built]:
    """Compile an engine and store it in the cache.

    Args:
        key: of `engine_key`.
        compile_it: compiles the engine.
        seconds: a clock.
    """
    started = seconds()
    compiled = compile_it()
    built = Built(layers=compiled.layers, build_seconds=round(seconds() - started, 3), fusion=compiled.fusion)
    with new_entry(_KIND, key) as folder:
        (folder / _ENGINE).write_bytes(compiled.engine)
        (folder / _ABOUT).write_text(built.to_json())
    return compiled.engine, built
