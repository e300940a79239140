"""Measure the memory of this process in bytes: resident, and on GPUs as the driver reports it; never estimated."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): writing 5 sets VmHWM back to the present resident size


def resident() -> int:
    """Return the present resident set size, bytes."""
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> bool:
    """Reset the peak to the present size. Return False where the kernel cannot: `peak` then covers the time before as well."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak() -> int:
    """Return the largest resident set size, bytes, since the last reset (Linux) or since the process began (elsewhere)."""
    if _STATUS.is_file():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024


def held_on_gpus() -> int | None:
    """Return the bytes on all GPUs that NVML accounts to this process.

    None without NVML's bindings, a driver or an entry of ours: in a container the driver may know us by another process id, and on
    Windows it does not account memory to processes.
    """
    if importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        devices = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        entries = [entry for device in devices for entry in pynvml.nvmlDeviceGetComputeRunningProcesses(device)]
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    ours = [entry.usedGpuMemory for entry in entries if entry.pid == os.getpid()]
    return None if not ours or None in ours else sum(ours)
