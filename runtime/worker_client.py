"""The driver's side of a worker process: a method per command, a time limit on each, and no child left behind."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from runtime.bundle import Bundle
from runtime.results import Scenario
from runtime.runners.base import Images, Logits, RunOptions
from vitnla.common.errors import InputError, MissingDependencyError, VitDeployError

_ROOT = Path(__file__).resolve().parent.parent
_ERRORS: dict[str, type[VitDeployError]] = {kind.__name__: kind for kind in (InputError, MissingDependencyError)}
_END_S = 5.0
_MIB = 1 << 20


class WorkerError(VitDeployError):
    """A worker crashed, hung, or met an error that is not the user's: its cell has no result, the others have (exit code 1)."""

    exit_code = 1


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


class Worker:
    """A child process that holds one session. Use it as a context manager: leaving it ends the child, whatever happened.

    Args:
        timeout_s: longest time that one command may take beyond what it was told to measure. Building an engine or compiling
            a graph at load takes minutes.
    """

    def __init__(self, timeout_s: float = 900.0) -> None:
        self._timeout_s = timeout_s
        self._folder = tempfile.TemporaryDirectory(prefix="vitdeploy-worker-")
        self._log = Path(self._folder.name) / "stderr.txt"
        # -P and our own root: a folder called `runtime` in the current directory must not shadow this package.
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        with self._log.open("wb") as log:
            # A session of its own, so that Ctrl-C reaches the driver alone, which then ends its children in order.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "runtime.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
            )  # fmt: skip
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        assert self._process.stdout is not None  # for the type checker: it is a pipe
        threading.Thread(target=_pump, args=(self._process.stdout, self._answers), daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def load(self, runner: str, bundle: Bundle, options: RunOptions) -> dict[str, Any]:
        """Open a bundle: `load_s`, `first_inference_ms` and `facts`."""
        return self._ask("load", runner=runner, bundle=str(bundle.folder.absolute()), options=asdict(options))

    def warm_up(self) -> bool:
        """Run until the speed is stable; false if it never was."""
        return bool(self._ask("warm_up")["stable"])

    def measure(self, scenario: Scenario, seconds: float, min_count: int) -> Slice:
        """Run for at least `seconds` and `min_count` calls."""
        result = self._ask("measure", extra_s=seconds, scenario=scenario, seconds=seconds, min_count=min_count)
        return Slice(result["images"], result["elapsed_s"], tuple(result["samples_ms"]))

    def infer(self, images: Images) -> Logits:
        """Logits [N, classes] of images [N, C, H, W], in batches of the size the session was opened for."""
        source, target = Path(self._folder.name) / "images.npy", Path(self._folder.name) / "logits.npy"
        np.save(source, images, allow_pickle=False)
        self._ask("infer", source=str(source), target=str(target))
        logits: Logits = np.load(target, allow_pickle=False)
        return logits

    def peak_memory_mb(self, runner: str, bundle: Bundle, options: RunOptions) -> float:
        """Peak resident MiB above the imported libraries, of loading and running. To be asked of a fresh worker, once."""
        result = self._ask("peak_memory", runner=runner, bundle=str(bundle.folder.absolute()), options=asdict(options))
        return float(result["above_baseline"]) / _MIB

    def close(self) -> None:
        """Let the child end by itself, then make sure that it has. May be called again."""
        assert self._process.stdin is not None  # for the type checker: it is a pipe
        try:
            self._process.stdin.close()
            self._process.wait(_END_S)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
        self._folder.cleanup()

    def kill(self) -> None:
        """End the child and what it started, now."""
        if self._process.poll() is None:
            if sys.platform == "win32":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self.kill()
        self.close()

    def _ask(self, command: str, extra_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None  # for the type checker: it is a pipe
        limit = self._timeout_s + extra_s
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=limit)
        except OSError as error:
            raise self._crashed(command) from error
        except queue.Empty as error:
            self.kill()
            raise self._failed(f"no answer to '{command}' within {limit:g} s; the worker was ended") from error
        if not line:
            raise self._crashed(command)
        reply = json.loads(line)
        if "result" in reply:
            result: dict[str, Any] = reply["result"]
            return result
        found = reply["error"]
        if found["type"] in _ERRORS:
            raise _ERRORS[found["type"]](found["message"], found["hint"])
        raise self._failed(f"'{command}' failed: {found['message']}")

    def _crashed(self, command: str) -> WorkerError:
        code = self._process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return self._failed(f"the worker crashed during '{command}' ({cause})")

    def _failed(self, message: str) -> WorkerError:
        error = WorkerError(" ".join(message.split()), "see the traceback with --debug")
        if log := self._log.read_text(errors="replace").strip():
            error.add_note(f"stderr of the worker:\n{log}")
        return error


def _pump(stream: IO[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    """Pass lines on; an empty one says that the child has closed its end."""
    with stream:
        for line in stream:
            answers.put(line)
    answers.put(b"")
