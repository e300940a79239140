"""Set and read the logical processors that this process may run on."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

_THREADS = Path("/proc/self/task")


def usable_cpus() -> tuple[int, ...]:
    """Return the numbers of the logical processors that this process may run on; all of them where the system does not say (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def restrict(cpus: Collection[int]) -> tuple[int, ...]:
    """Bind every thread of this process, and those that it starts later, to `cpus`.

    Returns:
        The processors that it may run on afterwards. Elsewhere than on Linux these are all, whatever was asked for.
    """
    if hasattr(os, "sched_setaffinity"):
        # The call binds one thread, and libraries that are imported already have theirs.
        for thread in [int(task.name) for task in _THREADS.iterdir()] if _THREADS.is_dir() else [0]:
            os.sched_setaffinity(thread, cpus)
    return usable_cpus()
