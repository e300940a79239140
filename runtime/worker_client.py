"""The driver's side of a worker process: a method per command of `runtime.worker`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from runtime.bundle import Bundle
from runtime.child import Child
from runtime.results import Scenario
from runtime.runners.base import Images, Logits, RunOptions

_MIB = 1 << 20


@dataclass(frozen=True)
class Slice:
    """One turn of one cell: images done in seconds of wall time, and raw latencies in milliseconds (none when offline)."""

    images: int
    elapsed_s: float
    samples_ms: tuple[float, ...]

    @property
    def images_per_s(self) -> float:
        """Throughput by wall clock."""
        return self.images / self.elapsed_s


class Worker(Child):
    """A child process that holds one session.

    Args:
        timeout_s: see `Child`. Building an engine or compiling a graph at load takes minutes.
    """

    def __init__(self, timeout_s: float = 900.0) -> None:
        super().__init__("runtime.worker", timeout_s)

    def load(self, runner: str, bundle: Bundle, options: RunOptions) -> dict[str, Any]:
        """Open a bundle: `load_s`, `first_inference_ms` and `facts`."""
        return self.ask("load", runner=runner, bundle=str(bundle.folder.absolute()), options=asdict(options))

    def warm_up(self) -> bool:
        """Run until the speed is stable; false if it never was."""
        return bool(self.ask("warm_up")["stable"])

    def measure(self, scenario: Scenario, seconds: float, min_count: int) -> Slice:
        """Run for at least `seconds` and `min_count` calls."""
        result = self.ask("measure", extra_s=seconds, scenario=scenario, seconds=seconds, min_count=min_count)
        return Slice(result["images"], result["elapsed_s"], tuple(result["samples_ms"]))

    def infer(self, images: Images) -> Logits:
        """Logits [N, classes] of images [N, C, H, W], in batches of the size the session was opened for."""
        source, target = self.folder / "images.npy", self.folder / "logits.npy"
        np.save(source, images, allow_pickle=False)
        self.ask("infer", source=str(source), target=str(target))
        logits: Logits = np.load(target, allow_pickle=False)
        return logits

    def peak_memory_mb(self, runner: str, bundle: Bundle, options: RunOptions) -> float:
        """Peak resident MiB above the imported libraries, of loading and running. To be asked of a fresh worker, once."""
        result = self.ask("peak_memory", runner=runner, bundle=str(bundle.folder.absolute()), options=asdict(options))
        return float(result["above_baseline"]) / _MIB
