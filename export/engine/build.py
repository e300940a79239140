"""Plan and build of a bundle's engines."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from export.engine.cache import cached_engine, compile_into_cache, engine_key
from export.engine.compiler import DEFAULTS, BuildOptions, compile_engine
from export.engine.graph import engine_graph
from runtime.bundle.engines import FIRST_GPU, PORTABLE, BatchProfile, EnginePrecision, EngineRecord, engine_path
from runtime.bundle.schema import MODEL, Precision
from runtime.runners.registry import traits
from runtime.runners.runtime_precision import QUANTIZED
from runtime.runners.trt.cuda import compute_capability, cuda_availability
from runtime.runners.trt.library import FLAVORS, TENSORRT, Flavor
from vitnla.common.errors import InputError, MissingDependencyError, unknown_name
from vitnla.common.files import sha256_file, write_atomically

CURRENT = "CURRENT"
RTX_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
_DEFAULT: tuple[EnginePrecision, ...] = ("fp32", "fp16")
"""Default engine precisions of an fp32 graph."""


@dataclass(frozen=True)
class EnginePlan:
    """The engines to compile: one for each capability and precision."""

    flavor: Flavor
    capabilities: tuple[str, ...]
    precisions: tuple[EnginePrecision, ...]
    profile: BatchProfile
    options: BuildOptions = DEFAULTS


def plan_engines(
    runtime: str, capabilities: tuple[str, ...], precisions: tuple[str, ...], profile: str,
    graph_precision: str = "fp32", options: BuildOptions = DEFAULTS,
) -> EnginePlan | None:  # fmt: skip
    """Plan the requested engines, checked before any long computation; `None` for no engines.

    Args:
        runtime: `trt`, `trt-rtx`, or `none` for no engines.
        capabilities: of the GPUs; by default `CURRENT` for TensorRT, which supports no other, and `portable` for TensorRT for RTX.
        precisions: of the engines, see `engine_precisions`; by default fp32 and fp16, or the graph's own where it is quantised.
        profile: batch sizes MIN:OPT:MAX.
        graph_precision: the bundle's own.
        options: how to compile.

    Raises:
        InputError: one of them is unknown or not supported.
        MissingDependencyError: the library, or the GPU that it needs, is absent.
    """
    if runtime == "none":
        return None
    if runtime not in FLAVORS:
        raise unknown_name("engine", runtime, ("none", *FLAVORS))
    flavor = FLAVORS[runtime]
    options.check(flavor)
    chosen = _precisions(runtime, precisions, graph_precision)
    targets = tuple(_capability(flavor, name) for name in capabilities or (CURRENT if flavor is TENSORRT else PORTABLE,))
    _check_formats(targets, chosen)
    plan = EnginePlan(flavor, targets, chosen, BatchProfile.parse(profile), options)
    if not (ready := flavor.can_build()).ok:
        raise MissingDependencyError(f"no {flavor.title} engine can be compiled here: {ready.reason}", ready.remedy)
    if CURRENT in targets and not (gpu := cuda_availability()).ok:
        hint = f"name the GPU instead, with --capability {PORTABLE} or {', '.join(RTX_CAPABILITIES)}"
        raise MissingDependencyError(f"capability {CURRENT} is that of the GPU here: {gpu.reason}", hint)
    return plan


def build_engines(folder: Path, plan: EnginePlan, on_step: Callable[[str], None] = lambda step: None) -> list[EngineRecord]:
    """Compile the `model.onnx` of a bundle folder and write each engine with its sidecar.

    Raises:
        VerdictError: the graph does not survive the precision, or the compiler refuses it; quotes its first error.
        InputError: the folder cannot be written.
    """
    records = []
    for precision in plan.precisions:
        with tempfile.TemporaryDirectory() as scratch:
            on_step(f"checking the graph in {precision}")
            graph, error = engine_graph(folder, precision, Path(scratch))
            for capability in plan.capabilities:
                records.append(_build(folder, plan, graph, error, capability, precision, on_step))
    return records


def _build(
    folder: Path, plan: EnginePlan, graph: Path, error: float, capability: str, precision: EnginePrecision,
    on_step: Callable[[str], None],
) -> EngineRecord:  # fmt: skip
    """Compile one engine, or read it from the cache, and write it with its sidecar."""
    target = _resolve(capability)
    title = f"{plan.flavor.title} engine {target} {precision}"
    key = engine_key(graph, plan.flavor, target, precision, plan.profile, plan.options)
    found = cached_engine(key)
    if found is not None:
        on_step(f"reuse {title} of an earlier export")
        engine, built = found
    else:
        on_step(f"compile {title}")
        detail = partial(_detail, title, on_step)
        compile_it = partial(
            compile_engine, graph, plan.flavor, capability, precision, plan.profile, plan.options, detail
        )  # fmt: skip
        engine, built = compile_into_cache(key, compile_it, time.perf_counter)
    path = folder / engine_path(plan.flavor.name, target, precision)
    write_atomically(path, engine)
    record = EngineRecord(
        file=path.relative_to(folder).as_posix(), runtime=plan.flavor.name,
        library_version=plan.flavor.library().__version__, capability=target, precision=precision,
        profile=plan.profile, layers=built.layers, build_seconds=built.build_seconds,
        graph_sha256=sha256_file(folder / MODEL), graph_max_rel=error,
        engine_sha256=sha256_file(path), engine_bytes=len(engine),
        builder_optimization_level=plan.options.level, version_compatible=plan.options.version_compatible,
        hardware_compatible=plan.options.hardware_compatible, reused=found is not None, fusion=built.fusion,
    )  # fmt: skip
    write_atomically(path.with_suffix(".json"), record.to_json())
    return record


def _detail(title: str, on_step: Callable[[str], None], phase: str) -> None:
    on_step(f"{title}: {phase}")


def engine_precisions(runtime: str, graph_precision: str) -> tuple[EnginePrecision, ...]:
    """Return the engine precisions possible for a graph; for a quantised one only its own, since its types are explicit.

    Args:
        runtime: name of the runtime of the engines.
        graph_precision: the bundle's own.
    """
    able = traits(runtime).run_precisions
    if graph_precision == "fp32":
        return tuple(precision for precision in able if precision not in QUANTIZED)
    return tuple(precision for precision in able if precision == graph_precision and precision in QUANTIZED)


def _precisions(runtime: str, asked: tuple[str, ...], graph_precision: str) -> tuple[EnginePrecision, ...]:
    """Return the requested precisions in the order of `engine_precisions`, checked against those possible for the graph."""
    possible = engine_precisions(runtime, graph_precision)
    if not possible:
        able = [precision for precision in get_args(Precision) if engine_precisions(runtime, precision)]
        hint = f"engines are compiled from bundles of {', '.join(able)}"
        raise InputError(f"no engine can be compiled from a graph of precision {graph_precision}", hint)
    known = get_args(EnginePrecision)
    for precision in asked:
        if precision not in known:
            raise unknown_name("engine precision", precision, known)
        if precision not in possible:
            hint = f"export with --precision {precision if precision in QUANTIZED else 'fp32'} for such an engine"
            raise InputError(
                f"a graph of precision {graph_precision} makes engines of {', '.join(possible)}, got '{precision}'", hint
            )
    if asked:
        return tuple(precision for precision in possible if precision in asked)
    return _DEFAULT if graph_precision == "fp32" else possible


def _check_formats(targets: tuple[str, ...], precisions: tuple[EnginePrecision, ...]) -> None:
    """Check that the GPUs of the capabilities support the precisions."""
    for target in targets:
        for precision in precisions:
            first = FIRST_GPU[precision]
            if target.startswith("SM") and int(target[2:]) < first:
                hint = f"choose another precision, or a capability from SM{first} on"
                raise InputError(f"GPUs of capability {target} have no {precision}", hint)


def _capability(flavor: Flavor, name: str) -> str:
    """Parse a capability and check that the library compiles for it."""
    if flavor is TENSORRT:
        if name != CURRENT:
            hint = "leave --capability out, or use --engine trt-rtx"
            raise InputError(f"TensorRT compiles only for the GPU that is there, got capability '{name}'", hint)
        return name
    choices = (PORTABLE, CURRENT, *RTX_CAPABILITIES)
    if name == "SM90":
        hint = f"use --engine trt on that GPU; --engine trt-rtx takes {', '.join(choices)}"
        raise InputError("TensorRT for RTX does not support SM90 (H100, H200)", hint)
    if name not in choices:
        raise unknown_name("capability", name, choices)
    return name


def _resolve(capability: str) -> str:
    """Return the capability for the engine's file name: for `CURRENT`, that of this machine's GPU."""
    if capability != CURRENT:
        return capability
    major, minor = compute_capability()
    return f"SM{major}{minor}"
