"""One measured process: `python -m runtime.worker`. Reads one JSON request a line on stdin, answers one JSON line on stdout.

A request is `{"command": NAME, ...arguments}`; an answer is `{"result": {...}}` or `{"error": {"type", "message", "hint"}}`.
Arrays travel as .npy files whose paths are in the request. The process ends when stdin does. `worker_client` is the other side.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from runtime import memory
from runtime.bundle import Bundle, open_bundle
from runtime.runners.base import Images, Runner, RunOptions, Session
from runtime.runners.registry import runner
from runtime.timing import time_calls, time_stream, warm_up
from vitnla.common.errors import VitDeployError

_SETTLE_S = 0.1  # untimed calls before each slice: caches fill, and whatever ran before has stopped spinning
_MEMORY_RUNS = 3
Answer = dict[str, Any]


class Commands:
    """What a worker can be asked. It holds one session; methods take and return JSON values."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._images: Images | None = None

    def load(self, runner: str, bundle: str, options: dict[str, Any]) -> Answer:
        """Open the bundle and run it once: time to load (imports excluded), time of the first inference, the session's facts."""
        found, opened, run_options = _open(runner, bundle, options)
        self._images = _batch(opened, run_options.batch)
        start = time.perf_counter_ns()
        self._session = found.load(opened, run_options)
        loaded = time.perf_counter_ns()
        self._session.run(self._images)
        first = time.perf_counter_ns()
        return {"load_s": (loaded - start) / 1e9, "first_inference_ms": (first - loaded) / 1e6, "facts": self._session.facts()}

    def warm_up(self) -> Answer:
        """Run until the speed is stable: whether it became so."""
        session, images = self._loaded()
        return {"stable": warm_up(lambda: session.run(images))}

    def measure(self, scenario: str, seconds: float, min_count: int) -> Answer:
        """Run for at least `seconds` and `min_count` calls: images, wall time, and each call's time if single-stream."""
        session, images = self._loaded()
        time_calls(lambda: session.run(images), _SETTLE_S, 1)
        if scenario == "offline":
            timing = time_stream(session.run_all, images, seconds, min_count)
        else:
            timing = time_calls(lambda: session.run(images), seconds, min_count)
        return {"images": timing.count * len(images), "elapsed_s": timing.elapsed_s, "samples_ms": timing.samples_ms}

    def infer(self, source: str, target: str) -> Answer:
        """Logits of the images in the .npy file `source`, in batches of the size the session was opened for, into `target`."""
        session, opened_for = self._loaded()
        images, size = np.load(source, allow_pickle=False), len(opened_for)
        logits = [session.run(images[first : first + size]) for first in range(0, len(images), size)]
        np.save(target, np.concatenate(logits), allow_pickle=False)
        return {"images": len(images)}

    def peak_memory(self, runner: str, bundle: str, options: dict[str, Any]) -> Answer:
        """Load and run in this fresh process: peak resident bytes above the imported libraries and the input."""
        found, opened, run_options = _open(runner, bundle, options)
        images = _batch(opened, run_options.batch)
        baseline, reset = memory.resident(), memory.reset_peak()
        session = found.load(opened, run_options)
        for _ in range(_MEMORY_RUNS):
            session.run(images)
        peak = memory.peak()
        session.close()
        return {"above_baseline": peak - baseline, "baseline": baseline, "peak_was_reset": reset}

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
    found = runner(name)
    found.availability().require(name)
    found.imports()
    return found, open_bundle(Path(folder)), RunOptions(**options)


def _batch(bundle: Bundle, size: int) -> Images:
    """A batch of real images: the bundle's reference inputs, repeated as often as needed."""
    images = bundle.reference()[0]
    return np.ascontiguousarray(images[list(itertools.islice(itertools.cycle(range(len(images))), size))])


def answer(commands: dict[str, Callable[..., Answer]], line: str) -> dict[str, Any]:
    """Run one request. Every exception becomes an error answer, since the driver must go on with the other cells."""
    try:
        request = json.loads(line)
        return {"result": commands[request.pop("command")](**request)}
    except VitDeployError as error:
        return {"error": {"type": type(error).__name__, "message": error.message, "hint": error.hint}}
    except Exception as error:
        traceback.print_exc()
        return {"error": {"type": type(error).__name__, "message": f"{type(error).__name__}: {error}", "hint": ""}}


def main() -> None:
    """Serve requests until stdin ends."""
    worker = Commands()
    commands: dict[str, Callable[..., Answer]] = {
        "load": worker.load, "warm_up": worker.warm_up, "measure": worker.measure,
        "infer": worker.infer, "peak_memory": worker.peak_memory,
    }  # fmt: skip
    with _protocol_stream() as stream:
        for line in sys.stdin:
            stream.write(json.dumps(answer(commands, line)) + "\n")
            stream.flush()
    worker.close()


def _protocol_stream() -> TextIO:
    """The real stdout, for answers alone: whatever libraries print to file descriptor 1 goes to stderr from here on."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream


if __name__ == "__main__":
    main()
