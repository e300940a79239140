"""Compiling the ONNX file of a bundle into TensorRT engines, by either of the two libraries."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx

from export.precision import to_fp16
from export.storage import save_model
from export.trace import INPUT
from export.verify import OnnxModel
from runtime.bundle import MODEL, REFERENCE
from runtime.cuda import compute_capability, cuda_availability
from runtime.engines import PORTABLE, BatchProfile, EnginePrecision, EngineRecord, engine_path
from runtime.parity import relative_error
from runtime.runners.trt_flavor import FLAVORS, TENSORRT, Flavor, error_log
from vitnla.common.errors import InputError, MissingDependencyError, VerdictError, unknown_name
from vitnla.common.files import sha256_file, write_atomically

CURRENT = "CURRENT"
RTX_CAPABILITIES = ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121")
FP16_TOLERANCE = 5e-2
"""Above this, fp16 has destroyed the model (an overflow gives NaN or nonsense); ordinary rounding stays a factor of ten below."""


@dataclass(frozen=True)
class EnginePlan:
    """Which engines to compile: one for each capability and precision."""

    flavor: Flavor
    capabilities: tuple[str, ...]
    precisions: tuple[EnginePrecision, ...]
    profile: BatchProfile


def plan_engines(runtime: str, capabilities: tuple[str, ...], precisions: tuple[str, ...], profile: str) -> EnginePlan | None:
    """Check what was asked for, before any long work.

    Args:
        runtime: `trt`, `trt-rtx`, or `none` for no engines.
        capabilities: of the GPUs; by default `CURRENT` for TensorRT, which can do no other, and `portable` for TensorRT for RTX.
        precisions: `fp32`, `fp16`.
        profile: batch sizes MIN:OPT:MAX.

    Raises:
        InputError: one of them is unknown or not supported.
        MissingDependencyError: the library, or the GPU that it needs, is absent.
    """
    if runtime == "none":
        return None
    if runtime not in FLAVORS:
        raise unknown_name("engine", runtime, ("none", *FLAVORS))
    flavor = FLAVORS[runtime]
    known = get_args(EnginePrecision)
    for precision in precisions:
        if precision not in known:
            raise unknown_name("engine precision", precision, known)
    targets = tuple(_capability(flavor, name) for name in capabilities or (CURRENT if flavor is TENSORRT else PORTABLE,))
    plan = EnginePlan(flavor, targets, tuple(one for one in known if one in precisions), BatchProfile.parse(profile))
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
    with tempfile.TemporaryDirectory() as scratch:
        for precision in plan.precisions:
            graph = folder / MODEL
            if precision == "fp16":
                graph = Path(scratch) / MODEL
                save_model(to_fp16(onnx.load(folder / MODEL)), graph)
            error = _graph_error(graph, folder, precision)
            for capability in plan.capabilities:
                target = _resolve(capability)
                on_step(f"compile {plan.flavor.title} engine {target} {precision}")
                started = time.perf_counter()
                engine, layers = compile_engine(graph, plan.flavor, capability, precision, plan.profile)
                seconds = time.perf_counter() - started
                path = folder / engine_path(plan.flavor.name, target, precision)
                write_atomically(path, engine)
                record = EngineRecord(
                    file=path.relative_to(folder).as_posix(), runtime=plan.flavor.name,
                    library_version=plan.flavor.library().__version__, capability=target, precision=precision,
                    profile=plan.profile, layers=layers, build_seconds=round(seconds, 3),
                    graph_sha256=sha256_file(folder / MODEL), graph_max_rel=error,
                    engine_sha256=sha256_file(path), engine_bytes=len(engine),
                )  # fmt: skip
                write_atomically(path.with_suffix(".json"), record.to_json())
                records.append(record)
    return records


def compile_engine(
    graph: Path, flavor: Flavor, capability: str, precision: EnginePrecision, profile: BatchProfile
) -> tuple[bytes, int]:
    """Compile an ONNX file.

    Returns:
        The engine, and the number of layers of the network before fusion.

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
    if precision == "fp32":
        config.clear_flag(library.BuilderFlag.TF32)  # on by default; its 10-bit mantissa would not be fp32
    if flavor.builds_without_gpu and capability != PORTABLE:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(library.ComputeCapability, capability), 0)
    config.add_optimization_profile(_profile(builder, network, profile))
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise _refused(flavor, "compile", errors)
    return bytes(serialized), network.num_layers


def _profile(builder: Any, network: Any, profile: BatchProfile) -> Any:
    made = builder.create_optimization_profile()
    image = tuple(network.get_input(0).shape)[1:]
    made.set_shape(INPUT, (profile.min, *image), (profile.opt, *image), (profile.max, *image))
    return made


def _capability(flavor: Flavor, name: str) -> str:
    """A capability as it was typed, checked against what the library compiles for."""
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
    """The capability under which an engine is filed: that of the GPU for `CURRENT`, which would mean another one elsewhere."""
    if capability != CURRENT:
        return capability
    major, minor = compute_capability()
    return f"SM{major}{minor}"


def _graph_error(graph: Path, folder: Path, precision: EnginePrecision) -> float:
    """Relative error of the graph at the engine's precision: the part of its quality that can be known without its GPU."""
    with np.load(folder / REFERENCE, allow_pickle=False) as reference:
        error = relative_error(OnnxModel(graph)(reference["images"]), reference["logits"])
    if precision == "fp16" and not error <= FP16_TOLERANCE:
        raise VerdictError(
            f"in fp16 the logits differ from torch's by {error:.1e} of the largest, expected at most {FP16_TOLERANCE:.0e}",
            "this model's activations leave the range of fp16; use --engine-precision fp32",
        )
    return error


def _refused(flavor: Flavor, verb: str, errors: list[str]) -> VerdictError:
    said = " ".join((errors or ["no reason given"])[0].split())
    return VerdictError(f"{flavor.title} could not {verb} the graph: {said}", "export with --opset 20, or without --engine")
