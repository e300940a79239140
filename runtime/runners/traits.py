"""Capabilities of a runtime: one record per runner, from which every list of runtimes is derived."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.bundle.engines import EnginePrecision
from runtime.bundle.schema import Precision


@dataclass(frozen=True)
class Traits:
    """Capabilities of a runtime. The defaults are those of a runtime that can only be benched and verified.

    Args:
        packages: distributions that provide the runtime; its version is that of the first one installed.
        quantizer_packages: further distributions that its quantiser needs; their versions are reported too.
        extra: the extra of vitdeploy that installs both.
        export_precisions: precisions that a bundle may be exported in for this runtime.
        run_precisions: precisions that may be asked for when a session is opened, as in `openvino:bf16` or `trt:fp16`.
        run_precision_flags: CPU flags of which the machine must have one for `run_precisions` other than fp32 to be worth
            measuring; none is any CPU.
        timed_precisions: precisions in which operators can be timed for a latency model; such a runner is a `GraphRunner`.
        providers: execution providers that it can be opened with, the default first.
        runs_graph: true if it runs `model.onnx` itself.
        runs_engines: true if it runs precompiled engines; such a runner is an `EngineRunner`.
        tunable: true if `tune` may choose it.
        needs_its_runtime: true if a precision below fp32 can only be scored on the runtime itself, because ONNX Runtime on the CPU
            gives other outputs.
    """

    packages: tuple[str, ...] = ()
    quantizer_packages: tuple[str, ...] = ()
    extra: str | None = None
    export_precisions: tuple[Precision, ...] = ()
    run_precisions: tuple[EnginePrecision, ...] = ()
    run_precision_flags: tuple[str, ...] = ()
    timed_precisions: tuple[Precision, ...] = ()
    providers: tuple[str, ...] = ()
    runs_graph: bool = False
    runs_engines: bool = False
    tunable: bool = False
    needs_its_runtime: bool = False
