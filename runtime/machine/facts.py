"""Describe the machine that a result was measured on, without host name, user or paths."""

from __future__ import annotations

import importlib.util
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from runtime.process.affinity import usable_cpus
from runtime.runners.registry import known_traits

_PACKAGES = ("vitdeploy", "numpy", "onnx")
"""Reported beside those of the runtimes."""
_FLAGS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "amx_fp16", "asimd", "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip


def machine_facts() -> dict[str, Any]:
    """Return processor, memory, system, GPUs and package versions, as JSON values."""
    model, flags = _processor()
    return {
        "cpu": model,
        "cpu_flags": [flag for flag in _FLAGS if flag in flags],
        "cores_physical": psutil.cpu_count(logical=False),
        "cores_logical": psutil.cpu_count(),
        "cores_usable": usable_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "os": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "packages": _versions(),
        "gpus": _gpus(),
    }


def usable_cores() -> int:
    """Return the number of logical cores that this process may run on."""
    return len(usable_cpus())


def _processor() -> tuple[str, set[str]]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor() or platform.machine(), set()
    fields = dict(_field(line) for line in info.read_text().splitlines() if ":" in line)
    flags = fields.get("flags") or fields.get("Features", "")
    return fields.get("model name") or platform.machine(), set(flags.split())


def _field(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _versions() -> dict[str, str]:
    versions = {}
    runtimes = known_traits().values()
    for package in (*_PACKAGES, *(name for traits in runtimes for name in (*traits.packages, *traits.quantizer_packages))):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _gpus() -> list[dict[str, Any]]:
    """Return the NVIDIA GPUs that NVML reports; none where its bindings or the driver are absent."""
    if importlib.util.find_spec("pynvml") is None:
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        return [_gpu(pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())]
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: Any) -> dict[str, Any]:
    import pynvml

    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return {
        "name": pynvml.nvmlDeviceGetName(handle),
        "capability": f"SM{major}{minor}",
        "memory_gib": round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 2**30, 1),
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "sm_clock_mhz": pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
    }
