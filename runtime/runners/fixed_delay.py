"""A runner whose time and memory are known, by which the harness measures itself. It is on no list: only the self-test asks for it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from runtime.bench.timing import sleep_until
from runtime.bundle.schema import Bundle
from runtime.runners.availability import Availability
from runtime.runners.base import Images, Logits, RunOptions, Session
from runtime.runners.traits import Traits

DELAY_MS = 20.0
ALLOCATED_MB = 256


class KnownSession(Session):
    """Every call takes `DELAY_MS`; the session holds `ALLOCATED_MB` of memory that it has written to."""

    def __init__(self, runner: str, bundle: Bundle) -> None:
        super().__init__(runner, bundle)
        self._classes = len(bundle.manifest.labels)
        self._held = np.ones(ALLOCATED_MB << 20, np.uint8)

    def _infer(self, images: Images) -> Logits:
        sleep_until(time.perf_counter_ns() + int(DELAY_MS * 1e6))
        return np.zeros((len(images), self._classes), np.float32)

    def facts(self) -> dict[str, Any]:
        """What every session says of itself."""
        return {"version": "1", "device": "none", "precision": "fp32", "threads": 1}


class KnownRunner:
    """See the module."""

    name = "known"
    traits = Traits()

    def availability(self) -> Availability:
        """Everywhere."""
        return Availability(True)

    def imports(self) -> None:
        """Nothing that is not imported already."""

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        """A session that takes the bundle's images and looks at none of its weights."""
        return KnownSession(self.name, bundle)
