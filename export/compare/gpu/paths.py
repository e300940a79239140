"""A path of the suite: a runtime at a precision, what it needs, and how it makes a shape ready to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from export.compare.gpu.records import Half, Key
from runtime.runners.availability import Availability


@dataclass(frozen=True)
class Ready:
    """A loaded model whose images lie on the device.

    Args:
        launch: enqueues one inference.
        synchronise: waits until all that was enqueued is done.
        elapsed_ms: milliseconds between two events on the stream, around what the function given enqueues.
        facts: what is really used.
        close: frees the model.
    """

    launch: Callable[[], object]
    synchronise: Callable[[], object]
    elapsed_ms: Callable[[Callable[[], object]], float]
    facts: dict[str, Any]
    close: Callable[[], None]


@dataclass(frozen=True)
class GpuPath:
    """What is measured, by its name in the file.

    Args:
        name: in the file.
        precision: of weights and arithmetic.
        availability: whether this machine has it.
        prepare: loads a shape at a batch size.
    """

    name: str
    precision: Half
    availability: Callable[[], Availability]
    prepare: Callable[[Key], Ready]
