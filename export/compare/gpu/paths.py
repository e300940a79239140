"""Paths of the suite: a runtime at a precision, its availability, and the preparation of a shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from export.compare.gpu.records import Half, Key
from runtime.runners.availability import Availability


@dataclass(frozen=True)
class Ready:
    """A loaded model with its images on the device.

    Args:
        launch: enqueues one inference.
        synchronise: waits for all enqueued work.
        elapsed_ms: milliseconds between two events on the stream, around the work that the given function enqueues.
        facts: versions and settings in use.
        close: frees the model.
    """

    launch: Callable[[], object]
    synchronise: Callable[[], object]
    elapsed_ms: Callable[[Callable[[], object]], float]
    facts: dict[str, Any]
    close: Callable[[], None]


@dataclass(frozen=True)
class GpuPath:
    """A path: a runtime at a precision.

    Args:
        name: in the results file.
        precision: of weights and arithmetic.
        availability: whether this machine can run it.
        prepare: loads a shape at a batch size.
    """

    name: str
    precision: Half
    availability: Callable[[], Availability]
    prepare: Callable[[Key], Ready]
