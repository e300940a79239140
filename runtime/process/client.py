"""The driver's side of a worker process: a method per command of `runtime.process.worker`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import numpy as np

from runtime.bundle.schema import Bundle
from runtime.process.child import Child
from runtime.results.schema import Scenario
from runtime.runners.base import Images, Logits, RunOptions
from vitnla.common.schema import Record

_MIB = 1 << 20


class Slice(Record):
    """One round of one cell: images, seconds of wall time, and raw latencies in milliseconds (none when offline)."""

    images: int
    elapsed_s: float
    samples_ms: tuple[float, ...]
    busy_s: float = 0.0
    """Server: time spent in calls."""
    unserved: int = 0
    """Server: queries that were still waiting when time was up."""
    process: int = 0
    """The round of the run before which its process was started."""

    @property
    def images_per_s(self) -> float:
        """Images per second of wall time."""
        return self.images / self.elapsed_s


class Worker(Child):
    """A child process that holds one session.

    Args:
        timeout_s: see `Child`. Building an engine or compiling a graph at load takes minutes.
        cpus: logical processors to keep to; None leaves those of this process.
    """

    def __init__(self, timeout_s: float = 900.0, cpus: Collection[int] | None = None) -> None:
        super().__init__("runtime.process.worker", timeout_s)
        self._wanted_cpus = None if cpus is None else sorted(cpus)

    def bind(self) -> tuple[int, ...]:
        """Bind to the processors asked for and return those that it may run on afterwards. Call it first."""
        return tuple(self.ask("bind", cpus=self._wanted_cpus)["cpus"])

    def load(self, runner: str, bundle: Bundle, options: RunOptions) -> dict[str, Any]:
        """Open a bundle; return `load_s`, `first_inference_ms` and `facts`."""
        return self.ask("load", runner=runner, bundle=str(bundle.folder.absolute()), options=asdict(options))

    def warm_up(self) -> bool:
        """Run until the speed is stable; return False if it never was."""
        return bool(self.ask("warm_up")["stable"])

    def measure(self, scenario: Scenario, seconds: float, min_count: int, rate: float | None = None, seed: int = 0) -> Slice:
        """Run for at least `seconds` and `min_count` calls; for the server scenario at `rate` queries/s, arriving by `seed`."""
        extra_s = seconds if rate is None else 2 * (seconds + 2 * min_count / rate)
        answer = self.ask(
            "measure", extra_s=extra_s, scenario=scenario, seconds=seconds, min_count=min_count, rate=rate, seed=seed
        )
        return Slice.model_validate(answer)

    def infer(self, images: Images) -> Logits:
        """Return the logits [N, classes] of images [N, C, H, W], in batches of the size that the session was opened for."""
        source, target = self.folder / "images.npy", self.folder / "logits.npy"
        np.save(source, images, allow_pickle=False)
        self.ask("infer", source=str(source), target=str(target))
        logits: Logits = np.load(target, allow_pickle=False)
        return logits

    def memory_mb(self, runner: str, bundle: Bundle, options: RunOptions) -> tuple[float, float | None]:
        """Return the peak resident MiB of loading and running above the imported libraries, and the GPU MiB held afterwards, if known.

        Call it once, on a fresh worker.
        """
        result = self.ask("peak_memory", runner=runner, bundle=str(bundle.folder.absolute()), options=asdict(options))
        device = result["device"]
        return float(result["above_baseline"]) / _MIB, None if device is None else float(device) / _MIB
