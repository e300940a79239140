"""The protocol that every runtime implements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.bundle.engines import EnginePrecision
from runtime.bundle.schema import Bundle, Precision
from runtime.runners.availability import Availability
from runtime.runners.traits import Traits
from vitnla.common.errors import InputError

Images = NDArray[np.float32 | np.uint8]
"""Input of a bundle's graph, by `manifest.input`: float32 [B, C, H, W], or uint8 [B, H, W, C]."""
Logits = NDArray[np.float32]
"""[B, classes]: logits, or probabilities where `manifest.embedded` says so."""
Hint = Literal["latency", "throughput"]


@dataclass(frozen=True)
class RunOptions:
    """Options of a session.

    Args:
        threads: intra-op CPU threads, the same for every runtime of a comparison.
        provider: execution provider of ONNX Runtime: `cpu`, `cuda` or `tensorrt`; others ignore it.
        batch: the batch size that will be run, for runtimes that need it in advance.
        hint: the tuning goal (OpenVINO's performance hint); other runtimes ignore it.
        precision: of the engine, for runtimes that run engines; `None` is the bundle's own, or the only one.
    """

    threads: int
    provider: str = "cpu"
    batch: int = 1
    hint: Hint = "latency"
    precision: EnginePrecision | None = None


class Session(ABC):
    """A loaded model. `run` checks its input, then calls the backend's `_infer`."""

    def __init__(self, runner: str, bundle: Bundle) -> None:
        self.runner = runner
        self._shape = tuple(bundle.manifest.input.shape[1:])
        self._dtype = np.dtype(bundle.manifest.input.dtype)
        self.fixed_batch = bundle.fixed_batch

    def run(self, images: Images) -> Logits:
        """Compute logits [B, classes] float32 of images [B, C, H, W] float32 or [B, H, W, C] uint8, by `manifest.input`.

        Raises:
            InputError: the shape or the element type is not what the bundle takes, or the batch is not the one it is fixed to.
        """
        if images.dtype != self._dtype or images.ndim != 4 or images.shape[1:] != self._shape or not len(images):
            wanted = f"{self._dtype} images [B, {', '.join(map(str, self._shape))}]"
            found = f"{images.dtype} {list(images.shape)}"
            raise InputError(f"{self.runner}: expected {wanted}, got {found}", "prepare the images as the bundle's manifest says")
        if self.fixed_batch is not None and len(images) != self.fixed_batch:
            found = f"{self.runner}: this graph runs at batch {self.fixed_batch} only, got {len(images)} images"
            raise InputError(found, f"use -b {self.fixed_batch}, or export the bundle from a graph with a dynamic batch")
        return self._infer(np.ascontiguousarray(images))

    def run_all(self, batches: Iterable[Images]) -> None:
        """Run every batch and drop the logits, as the offline scenario does; a runtime may keep several in flight."""
        for images in batches:
            self.run(images)

    @abstractmethod
    def _infer(self, images: Images) -> Logits: ...

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the settings in effect: `version`, `device`, `precision`, `threads`, and backend-specific facts."""

    def close(self) -> None:  # noqa: B027 - most sessions have nothing to free
        """Free what the session holds."""


class Runner(Protocol):
    """A runtime. `imports` loads its libraries, so that memory can be measured above them.

    Its module must not import them: the traits of every registered runtime are read to list the runtimes.
    """

    name: str
    traits: Traits

    def availability(self) -> Availability:
        """Return whether it can run on this machine, without loading a model."""
        ...

    def imports(self) -> None:
        """Import the libraries that `load` needs."""
        ...

    def load(self, bundle: Bundle, options: RunOptions) -> Session:
        """Open the bundle's model.

        Raises:
            MissingDependencyError: the runtime, its device or a fitting engine is absent.
        """
        ...


@runtime_checkable
class GraphRunner(Runner, Protocol):
    """A runtime that can also run a graph outside a bundle, so that operators can be timed on it."""

    def open_graph(
        self, graph: bytes, feed: Mapping[str, NDArray[np.float32]], precision: Precision, threads: int
    ) -> Callable[[], object]:
        """Open a graph with the options that bundles are run with, and return a function that runs it once.

        Args:
            graph: the serialised ONNX model.
            feed: its inputs by name, the same in every run.
            precision: one of `traits.timed_precisions`; a graph in int8 holds its Q/DQ already.
            threads: CPU threads.
        """
        ...


@runtime_checkable
class EngineRunner(Runner, Protocol):
    """A runtime that runs precompiled engines, of which a bundle may hold several."""

    def engine_precisions(self, bundle: Bundle) -> tuple[EnginePrecision, ...]:
        """Return the precisions of the bundle's engines for this runtime, in the order of `traits.run_precisions`."""
        ...
