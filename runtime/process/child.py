"""The driver's side of a child process that answers requests: each has a time limit, and no child outlives the driver.

The other side is `runtime.process.server`, which defines requests and answers.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from vitnla.common.errors import InputError, MissingDependencyError, VitDeployError

_ROOT = Path(__file__).resolve().parents[2]
_ERRORS: dict[str, type[VitDeployError]] = {kind.__name__: kind for kind in (InputError, MissingDependencyError)}
_END_S = 5.0


class WorkerError(VitDeployError):
    """A worker crashed, hung, or met an error that is not the user's: its cell has no result, the others have (exit code 1)."""

    exit_code = 1


class Child:
    """A process `python -m MODULE` that serves requests. Use it as a context manager: leaving it ends the child, whatever happened.

    Args:
        module: a module whose `main` calls `runtime.process.server.serve`.
        timeout_s: longest time that one command may take beyond what it was told to measure.
    """

    def __init__(self, module: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._scratch = tempfile.TemporaryDirectory(prefix="vitdeploy-worker-")
        self.folder = Path(self._scratch.name)
        self._log = self.folder / "stderr.txt"
        # -P and our own root: a folder called `runtime` in the current directory must not shadow this package.
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        with self._log.open("wb") as log:
            # A session of its own, so that Ctrl-C reaches the driver alone, which then ends its children in order.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
            )  # fmt: skip
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        assert self._process.stdout is not None  # for the type checker: it is a pipe
        threading.Thread(target=_pump, args=(self._process.stdout, self._answers), daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def close(self) -> None:
        """Let the child end by itself, and kill it where it does not within 5 s. May be called again."""
        assert self._process.stdin is not None  # for the type checker: it is a pipe
        try:
            self._process.stdin.close()
            self._process.wait(_END_S)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()
        self._scratch.cleanup()

    def kill(self) -> None:
        """Kill the child and the processes that it started."""
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

    def ask(self, command: str, extra_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer, for at most `extra_s` more than the time limit.

        Raises:
            WorkerError: the child crashed, hung, or met a bug.
            InputError: the child reported one.
            MissingDependencyError: the child reported one.
        """
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
        failure = reply["error"]
        if failure["type"] in _ERRORS:
            raise _ERRORS[failure["type"]](failure["message"], failure["hint"])
        raise self._failed(f"'{command}' failed: {failure['message']}")

    def _crashed(self, command: str) -> WorkerError:
        code = self._process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if cause == "SIGKILL":
            cause += ": nobody here sent it, so the system was probably out of memory"
        return self._failed(f"the worker crashed during '{command}' ({cause})")

    def _failed(self, message: str) -> WorkerError:
        error = WorkerError(" ".join(message.split()), "see the traceback with --debug")
        if log := self._log.read_text(errors="replace").strip():
            error.add_note(f"stderr of the worker:\n{log}")
        return error


def _pump(stream: IO[bytes], answers: queue.SimpleQueue[bytes]) -> None:
    """Put the lines of a stream into a queue; an empty one at the end of the stream."""
    with stream:
        for line in stream:
            answers.put(line)
    answers.put(b"")
