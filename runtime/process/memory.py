"""Resident memory of this process, in bytes. Used by a worker that does nothing else; see `Worker.peak_memory`."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): writing 5 sets VmHWM back to the present resident size


def resident() -> int:
    """Resident set size now."""
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> bool:
    """Forget the peak so far. False where the kernel cannot: then `peak` also covers what came before."""
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak() -> int:
    """Largest resident set size since the last reset (Linux) or since the process began (elsewhere)."""
    if _STATUS.is_file():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
