"""Runners that behave badly, or quickly. Tests install them as a third-party package would."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import numpy as np

from runtime.bundle.schema import Bundle
from runtime.runners.availability import Availability
from runtime.runners.base import Images, Logits, RunOptions, Session
from runtime.runners.traits import Traits
from vitnla.common.errors import InputError


class QuickSession(Session):
    """Logits are the first pixels, so they are wrong but right in shape."""

    def __init__(self, runner: str, bundle: Bundle) -> None:
        super().__init__(runner, bundle)
        self._classes = len(bundle.manifest.labels)

    def _infer(self, images: Images) -> Logits:
        return images.reshape(len(images), -1)[:, : self._classes]

    def facts(self) -> dict[str, Any]:
        return {"version": "1", "device": "cpu", "precision": "fp32", "threads": 1}


class Quick:
    name = "quick"
    traits = Traits()

    def availability(self) -> Availability:
        return Availability(True)

    def imports(self) -> None:
        print("a library prints to stdout")
        os.write(1, b"and so does C code\n")

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        return QuickSession(self.name, bundle)


class CrashSession(QuickSession):
    """Dies in the first measured slice, not at load."""

    calls = 0

    def _infer(self, images: Images) -> Logits:
        self.calls += 1
        if self.calls > 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super()._infer(images)


class Crash(Quick):
    name = "crash"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        return CrashSession(self.name, bundle)


class Hang(Quick):
    name = "hang"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        time.sleep(3600)
        raise AssertionError("unreachable")


class Broken(Quick):
    name = "broken"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        raise RuntimeError("bad driver\nsecond line")


class Refuses(Quick):
    name = "refuses"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        raise InputError("expected a better graph", "export again")


class Absent(Quick):
    name = "absent"

    def availability(self) -> Availability:
        return Availability(False, "there is no such device", "buy one")


class NapSession(QuickSession):
    """Takes two milliseconds a call, whatever the batch."""

    def _infer(self, images: Images) -> Logits:
        time.sleep(0.002)
        return super()._infer(images)


class Nap(Quick):
    name = "nap"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        return NapSession(self.name, bundle)


class Greedy(Quick):
    """Wants more memory than there is, and says so."""

    name = "greedy"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        np.ones(1 << 60, np.uint8)
        raise AssertionError("unreachable")


class Killed(Quick):
    """Is ended as the system ends a process that takes too much memory."""

    name = "killed"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


class SmallSession(QuickSession):
    """Batches above 4 do not fit."""

    def _infer(self, images: Images) -> Logits:
        if len(images) > 4:
            raise MemoryError("no room")
        time.sleep(0.002)
        return super()._infer(images)


class Small(Quick):
    name = "small"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        return SmallSession(self.name, bundle)


class Mends(Quick):
    """Cannot be loaded until its last try has left a file."""

    name = "mends"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        mark = bundle.folder / "tried"
        if not mark.exists():
            mark.touch()
            raise InputError("expected a second try", "try again")
        return NapSession(self.name, bundle)


class ShapedSession(QuickSession):
    """Answers the contrary where it was opened for one image."""

    def __init__(self, runner: str, bundle: Bundle, batch: int) -> None:
        super().__init__(runner, bundle)
        self._sign = np.float32(-1 if batch == 1 else 1)

    def _infer(self, images: Images) -> Logits:
        return self._sign * super()._infer(images)


class Shaped(Quick):
    name = "shaped"

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        return ShapedSession(self.name, bundle, options.batch)
