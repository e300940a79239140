"""GPU memory that one process holds, as the driver says. None where it does not say: it is never estimated."""

from __future__ import annotations

import importlib.util
import os


def held_by_this_process() -> int | None:
    """Bytes over all GPUs that NVML accounts to this process.

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
