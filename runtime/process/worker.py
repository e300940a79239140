"""One measured process: `python -m runtime.process.worker`. The protocol is that of `runtime.process.server`; `client` is the other side.

Arrays travel as .npy files whose paths are in the request.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from runtime.bench.timing import poisson_arrivals, time_arrivals, time_calls, time_stream, warm_up
from runtime.bundle.schema import Bundle, open_bundle
from runtime.process import memory
from runtime.process.affinity import restrict, usable_cpus
from runtime.process.server import Answer, serve
from runtime.runners.base import Images, Runner, RunOptions, Session
from runtime.runners.batches import run_in_batches
from runtime.runners.registry import runner

_SETTLE_S = 0.1  # untimed calls before each slice: caches fill, and whatever ran before has stopped spinning
_MEMORY_RUNS = 3


class Commands:
    """The commands of a worker, which holds one session. Methods take and return JSON values."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._images: Images | None = None

    def bind(self, cpus: list[int] | None) -> Answer:
        """Bind to these logical processors, or to none; return those that it may run on afterwards."""
        return {"cpus": usable_cpus() if cpus is None else restrict(cpus)}

    def load(self, runner: str, bundle: str, options: dict[str, Any]) -> Answer:
        """Open the bundle and run it once; return load time (s, without imports), first inference (ms) and the session's facts."""
        loader, opened, run_options = _open(runner, bundle, options)
        self._images = _batch(opened, run_options.batch)
        start = time.perf_counter_ns()
        self._session = loader.load(opened, run_options)
        loaded = time.perf_counter_ns()
        self._session.run(self._images)
        first = time.perf_counter_ns()
        return {"load_s": (loaded - start) / 1e9, "first_inference_ms": (first - loaded) / 1e6, "facts": self._session.facts()}

    def warm_up(self) -> Answer:
        """Run until the speed is stable; return whether it became so."""
        session, images = self._loaded()
        return {"stable": warm_up(lambda: session.run(images))}

    def measure(self, scenario: str, seconds: float, min_count: int, rate: float | None, seed: int) -> Answer:
        """Run for at least `seconds` and `min_count` calls; return images, wall time, and each call's latency unless offline.

        With a `rate` (server), calls begin as queries arrive, by a Poisson process drawn from `seed`.
        """
        session, images = self._loaded()
        time_calls(lambda: session.run(images), _SETTLE_S, 1)
        if rate is not None:
            arrivals = poisson_arrivals(rate, seconds, min_count, seed)
            timing = time_arrivals(lambda: session.run(images), arrivals, 2 * max(seconds, arrivals[-1]))
        elif scenario == "offline":
            timing = time_stream(session.run_all, images, seconds, min_count)
        else:
            timing = time_calls(lambda: session.run(images), seconds, min_count)
        return {
            "images": timing.count * len(images), "elapsed_s": timing.elapsed_s, "samples_ms": timing.samples_ms,
            "busy_s": timing.busy_s, "unserved": timing.unserved,
        }  # fmt: skip

    def infer(self, source: str, target: str) -> Answer:
        """Write the logits [N, classes] of the images in the .npy file `source` to `target`, in batches of the opened size."""
        session, opened_for = self._loaded()
        images, size = np.load(source, allow_pickle=False), len(opened_for)
        np.save(target, run_in_batches(session, images, size), allow_pickle=False)
        return {"images": len(images)}

    def peak_memory(self, runner: str, bundle: str, options: dict[str, Any]) -> Answer:
        """Load and run in this fresh process; return peak resident bytes above imports and input, and bytes of GPU memory."""
        loader, opened, run_options = _open(runner, bundle, options)
        images = _batch(opened, run_options.batch)
        baseline, reset = memory.resident(), memory.reset_peak()
        session = loader.load(opened, run_options)
        for _ in range(_MEMORY_RUNS):
            session.run(images)
        peak, device = memory.peak(), memory.held_on_gpus()
        session.close()
        return {"above_baseline": peak - baseline, "baseline": baseline, "peak_was_reset": reset, "device": device}

    def close(self) -> None:
        """Free the session."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _loaded(self) -> tuple[Session, Images]:
        if self._session is None or self._images is None:
            raise RuntimeError("nothing is loaded yet: send 'load' first")
        return self._session, self._images


def _open(name: str, folder: str, options: dict[str, Any]) -> tuple[Runner, Bundle, RunOptions]:
    loader = runner(name)
    loader.availability().require(name)
    loader.imports()
    return loader, open_bundle(Path(folder)), RunOptions(**options)


def _batch(bundle: Bundle, size: int) -> Images:
    """Return a batch of real images: the bundle's reference inputs, repeated as often as needed."""
    images = bundle.reference()[0]
    return np.ascontiguousarray(images[list(itertools.islice(itertools.cycle(range(len(images))), size))])


def main() -> None:
    """Serve requests until stdin ends."""
    worker = Commands()
    serve(
        {
            "bind": worker.bind, "load": worker.load, "warm_up": worker.warm_up, "measure": worker.measure,
            "infer": worker.infer, "peak_memory": worker.peak_memory,
        }
    )  # fmt: skip
    worker.close()


if __name__ == "__main__":
    main()
