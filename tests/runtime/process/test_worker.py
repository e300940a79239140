"""A worker that works, crashes, hangs or chatters; the driver gets an answer or an error, and no child is left."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest

from runtime.bundle.schema import Bundle
from runtime.process.child import WorkerError
from runtime.process.client import Worker
from runtime.runners.base import RunOptions
from runtime.runners.registry import runner
from vitnla.common.errors import InputError, MissingDependencyError

ONE = RunOptions(threads=1)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def test_a_worker_loads_measures_infers_and_ends(tiny_bundle: Bundle) -> None:
    images, _ = tiny_bundle.reference()
    with Worker() as worker:
        loaded = worker.load("ort", tiny_bundle, RunOptions(threads=1, batch=3))
        assert worker.warm_up() in (True, False)
        single = worker.measure("single-stream", 0.0, 5)
        offline = worker.measure("offline", 0.0, 5)
        logits = worker.infer(images)
        pid = worker.pid
    assert loaded["load_s"] > 0
    assert loaded["first_inference_ms"] > 0
    assert loaded["facts"]["providers"] == ["CPUExecutionProvider"]
    assert (single.images, len(single.samples_ms)) == (15, 5)
    assert sum(single.samples_ms) == pytest.approx(1000 * single.elapsed_s)
    assert (offline.images, offline.samples_ms) == (15, ())
    assert np.allclose(logits, runner("ort").load(tiny_bundle, ONE).run(images), atol=1e-5)
    assert gone(pid)


def test_what_libraries_print_does_not_reach_the_protocol(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    with Worker() as worker:
        assert worker.load("quick", tiny_bundle, ONE)["facts"]["version"] == "1"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("refuses", InputError, "expected a better graph"),
        ("absent", MissingDependencyError, "runtime 'absent' cannot run here: there is no such device"),
        ("unheard-of", InputError, "unknown runtime 'unheard-of'"),
        ("broken", WorkerError, "'load' failed: RuntimeError: bad driver second line"),
    ],
)
def test_errors_keep_their_kind_and_leave_the_worker_usable(
    name: str, error: type[Exception], message: str, tiny_bundle: Bundle, fake_runners: list[str]
) -> None:
    with Worker() as worker:
        with pytest.raises(error, match=message):
            worker.load(name, tiny_bundle, ONE)
        assert worker.load("quick", tiny_bundle, ONE)["facts"]["version"] == "1"


def test_a_bug_in_a_runner_brings_its_traceback(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    with Worker() as worker, pytest.raises(WorkerError) as caught:
        worker.load("broken", tiny_bundle, ONE)
    assert "fake_runners.py" in caught.value.__notes__[0]


def test_a_crash_is_named_by_its_signal(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    with Worker() as worker:
        worker.load("crash", tiny_bundle, ONE)
        with pytest.raises(WorkerError, match=r"crashed during 'measure' \(SIGSEGV\)"):
            worker.measure("single-stream", 0.1, 1)
        with pytest.raises(WorkerError, match="crashed during 'measure'"):
            worker.measure("single-stream", 0.1, 1)
        pid = worker.pid
    assert gone(pid)


def test_a_hang_is_ended_at_the_time_limit(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    with Worker(timeout_s=3.0) as worker:
        pid = worker.pid
        with pytest.raises(WorkerError, match="no answer to 'load' within 3 s"):
            worker.load("hang", tiny_bundle, ONE)
        assert gone(pid)


def test_an_interrupt_ends_a_busy_worker_at_once(tiny_bundle: Bundle, fake_runners: list[str]) -> None:
    def interrupted() -> None:
        with Worker() as worker:
            pids.append(worker.pid)
            raise KeyboardInterrupt

    pids: list[int] = []
    _expect_interrupt(interrupted)
    assert gone(pids[0])


def _expect_interrupt(call: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt):
        call()


def test_peak_memory_is_that_of_loading_and_running(tiny_bundle: Bundle) -> None:
    with Worker() as worker:
        peak = worker.memory_mb("ort", tiny_bundle, ONE)[0]
    # At least the weights, and far less than the libraries, which are part of the baseline.
    assert tiny_bundle.model_bytes() / 2**20 < peak < 60


def test_an_idle_worker_takes_no_processor_time(tiny_bundle: Bundle) -> None:
    with Worker() as worker:
        worker.load("ort", tiny_bundle, RunOptions(threads=2))
        worker.measure("single-stream", 0.1, 10)
        process = psutil.Process(worker.pid)
        before = process.cpu_times()
        time.sleep(0.5)
        after = process.cpu_times()
    # One tick of the kernel's accounting is allowed.
    assert after.user + after.system - before.user - before.system <= 0.02
