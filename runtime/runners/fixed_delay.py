"""A runner of fixed delay and memory, hidden from every list; for `vitdeploy bench --self-test`."""

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


class FixedDelaySession(Session):
    """A session whose calls take `DELAY_MS` and which holds `ALLOCATED_MB` MiB of touched memory."""

    def __init__(self, runner: str, bundle: Bundle) -> None:
        super().__init__(runner, bundle)
        self._classes = len(bundle.manifest.labels)
        self._held = np.ones(ALLOCATED_MB << 20, np.uint8)

    def _infer(self, images: Images) -> Logits:
        sleep_until(time.perf_counter_ns() + int(DELAY_MS * 1e6))
        return np.zeros((len(images), self._classes), np.float32)

    def facts(self) -> dict[str, Any]:
        """Return a version, device, precision and number of threads, as every session does."""
        return {"version": "1", "device": "none", "precision": "fp32", "threads": 1}


class FixedDelayRunner:
    """Open sessions of fixed delay and memory."""

    name = "fixed-delay"
    traits = Traits()

    def availability(self) -> Availability:
        """Return that it can run everywhere."""
        return Availability(True)

    def imports(self) -> None:
        """Import nothing."""

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        """Return a session that takes the bundle's images and reads none of its weights."""
        return FixedDelaySession(self.name, bundle)
