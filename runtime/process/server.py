"""The child's side of a process that answers requests; `runtime.process.child` is the other side.

A request is one line `{"command": NAME, ...arguments}` on stdin; an answer is one line `{"result": {...}}` or
`{"error": {"type", "message", "hint"}}` on stdout. The process ends when stdin does.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, TextIO

from vitnla.common.errors import VitDeployError

Answer = dict[str, Any]


def serve(commands: dict[str, Callable[..., Answer]]) -> None:
    """Answer requests with the functions named, until stdin ends."""
    with _protocol_stream() as stream:
        for line in sys.stdin:
            stream.write(json.dumps(answer(commands, line)) + "\n")
            stream.flush()


def answer(commands: dict[str, Callable[..., Answer]], line: str) -> dict[str, Any]:
    """Run one request and return its answer. Every exception becomes an error answer, since the driver goes on with other cells."""
    try:
        request = json.loads(line)
        return {"result": commands[request.pop("command")](**request)}
    except VitDeployError as error:
        return {"error": {"type": type(error).__name__, "message": error.message, "hint": error.hint}}
    except Exception as error:
        traceback.print_exc()
        return {"error": {"type": type(error).__name__, "message": f"{type(error).__name__}: {error}", "hint": ""}}


def _protocol_stream() -> TextIO:
    """Return a stream to the real stdout for answers alone; from here on, file descriptor 1 is stderr, for whatever libraries print."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream
