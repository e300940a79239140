"""The two TensorRT libraries, which share one Python API, and their differences."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from runtime.bundle.engines import Library
from runtime.runners.availability import Availability
from runtime.runners.trt.cuda import cuda_availability


@dataclass(frozen=True)
class Flavor:
    """One of the libraries.

    Args:
        name: of the runtime, in options, engine files and tables.
        module: the module to import.
        title: its name in messages.
        extra: the extra of vitdeploy that installs it.
        builds_without_gpu: true if it compiles for a GPU that is not present.
        times_kernels: true if it chooses kernels by timing them, so that it has optimisation levels and a timing cache; one
            that does not has no version-compatible engines either.
    """

    name: Library
    module: str
    title: str
    extra: str
    builds_without_gpu: bool
    times_kernels: bool

    @property
    def installed(self) -> bool:
        """Return whether it can be imported, without importing it."""
        return importlib.util.find_spec(self.module) is not None

    def library(self) -> Any:
        """Import the module and return it."""
        return importlib.import_module(self.module)

    def can_build(self) -> Availability:
        """Return whether engines can be compiled here."""
        return self._needs(gpu=not self.builds_without_gpu)

    def can_run(self) -> Availability:
        """Return whether engines can be run here."""
        return self._needs(gpu=True)

    def _needs(self, *, gpu: bool) -> Availability:
        install = f"pip install 'vitdeploy[{self.extra}]'"
        lacking = [] if self.installed else [Availability(False, f"{self.title} is not installed", install)]
        if gpu and not (cuda := cuda_availability()).ok:
            lacking.append(cuda)
        if not lacking:
            return Availability(True)
        return Availability(False, "; ".join(part.reason for part in lacking), "; ".join(part.remedy for part in lacking))


TENSORRT = Flavor("trt", "tensorrt", "TensorRT", "gpu", builds_without_gpu=False, times_kernels=True)
RTX = Flavor("trt-rtx", "tensorrt_rtx", "TensorRT for RTX", "rtx", builds_without_gpu=True, times_kernels=False)
FLAVORS = {flavor.name: flavor for flavor in (TENSORRT, RTX)}


def engine_flavor(runtime: str) -> Flavor:
    """Return the library of a runtime: `trt` is TensorRT if installed, else TensorRT for RTX; `trt-rtx` is always the latter."""
    return RTX if runtime == RTX.name or (RTX.installed and not TENSORRT.installed) else TENSORRT


def error_log(library: Any) -> tuple[Any, list[str]]:
    """Return a logger for a TensorRT library, and the list in which it collects errors; other messages are dropped."""
    errors: list[str] = []

    class Log(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR):
                errors.append(message.strip())

    return Log(), errors
