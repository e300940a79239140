"""Records of `results/gpu-NAME.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from export.compare.gpu.shapes import Shape, Size, Variant
from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record

Half = Literal["fp16", "bf16"]


class Key(NamedTuple):
    """Key of a row: path, shape and batch size."""

    path: str
    shape: Shape
    batch: int

    def __str__(self) -> str:
        return f"{self.path} {self.shape} batch {self.batch}"


class Measurement(Record):
    """One model on one path at one batch size. Times are per batch, with the images already on the device."""

    host_ms: tuple[float, ...]
    """Wall time of each call in ms, from enqueueing until the GPU is done."""
    event_ms: tuple[float, ...]
    """Time per call in ms by CUDA events on the stream, one per window: the mean of `launches` calls enqueued in sequence."""
    launches: int
    settled: bool
    """Whether the warm-up's windows converged to within 10 %."""
    tflops: float
    """Achieved TFLOP/s, by the median of `event_ms`."""
    ceiling_share: float | None
    """`tflops` over the matmul ceiling at this precision; null if that was not measured."""
    facts: dict[str, Any]
    """Versions and settings in use."""


class Row(Record):
    """A measurement, or the reason of its failure on an available path."""

    path: str
    precision: Half
    size: Size
    variant: Variant
    batch: int
    flops: int
    """Floating-point operations of one batch."""
    measured: Measurement | None = None
    failure: str | None = None

    @property
    def key(self) -> Key:
        """Key of the row."""
        return Key(self.path, Shape(self.size, self.variant), self.batch)


class Skipped(Record):
    """A path that this machine cannot run."""

    path: str
    reason: str
    remedy: str


class Ceiling(Record):
    """Best of several timings of a large matrix product on this GPU."""

    precision: Half
    side: int
    """Side of the square matrices."""
    tflops: float


class GpuResults(Record):
    """Results of one or several runs of the suite on one machine."""

    schema_version: Literal[1] = 1
    name: str
    command: str
    machine: dict[str, Any]
    ceilings: tuple[Ceiling, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    rows: tuple[Row, ...] = ()

    def with_row(self, row: Row) -> GpuResults:
        """Return these results with a row added, in place of an earlier one of the same key."""
        return self.model_copy(update={"rows": (*(one for one in self.rows if one.key != row.key), row)})

    @property
    def done(self) -> frozenset[Key]:
        """Return the keys of rows with a measurement; failed rows are measured again."""
        return frozenset(row.key for row in self.rows if row.measured is not None)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Return the rows with a reason in place of a measurement."""
        return tuple(row for row in self.rows if row.measured is None)

    def ceiling(self, precision: Half) -> float | None:
        """Return the matmul's TFLOP/s at a precision, or `None` if it was not measured."""
        return next((one.tflops for one in self.ceilings if one.precision == precision), None)


def resume(path: Path, fresh: GpuResults) -> GpuResults:
    """Read the results of an earlier run of the suite on this machine, to resume it; return `fresh` if there are none.

    Raises:
        InputError: the file is damaged, or from another machine or other versions.
    """
    if not path.exists():
        return fresh
    found = GpuResults.read(path)
    if _setup(found.machine) != _setup(fresh.machine):
        differing = sorted(key for key, value in _setup(fresh.machine).items() if _setup(found.machine)[key] != value)
        raise InputError(
            f"{path} is of another machine or of other versions: {', '.join(differing)} differ",
            "choose another --name, or remove the file",
        )
    return found.model_copy(update={"command": fresh.command, "skipped": ()})


def write(path: Path, results: GpuResults) -> None:
    """Write the file atomically.

    Raises:
        InputError: it cannot be written.
    """
    write_atomically(path, results.to_json())


def achieved_tflops(flops: int, milliseconds: tuple[float, ...]) -> float:
    """Return TFLOP/s, by the median of the times of one batch."""
    return flops / (float(np.median(milliseconds)) * 1e9)


def _setup(machine: dict[str, Any]) -> dict[str, Any]:
    """Return the facts that must be equal for rows to be comparable; clocks and free memory vary, and are left out."""
    gpus = [{name: gpu.get(name) for name in ("name", "capability", "driver")} for gpu in machine.get("gpus", [])]
    return {"cpu": machine.get("cpu"), "packages": machine.get("packages"), "gpus": gpus}
