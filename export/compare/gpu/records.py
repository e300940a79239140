"""What `results/gpu-NAME.json` holds."""

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
    """What a row is of."""

    path: str
    shape: Shape
    batch: int

    def __str__(self) -> str:
        return f"{self.path} {self.shape} batch {self.batch}"


class Measurement(Record):
    """One model on one path at one batch size. Every time is of a whole batch whose images lie on the device already."""

    host_ms: tuple[float, ...]
    """Wall time of each call: enqueue, and wait until the GPU is done."""
    event_ms: tuple[float, ...]
    """By CUDA events on the stream: the mean of `launches` calls enqueued one after another, once for each window."""
    launches: int
    settled: bool
    """Whether the warm-up's windows came to lie within 10 %."""
    tflops: float
    """Achieved, by the median of `event_ms`."""
    ceiling_share: float | None
    """Of the matmul ceiling at this precision; null where that was not measured."""
    facts: dict[str, Any]
    """What was really used."""


class Row(Record):
    """A measurement, or the reason why there is none although the path is available."""

    path: str
    precision: Half
    size: Size
    variant: Variant
    batch: int
    flops: int
    """Of one batch."""
    measured: Measurement | None = None
    failure: str | None = None

    @property
    def key(self) -> Key:
        """What it is of."""
        return Key(self.path, Shape(self.size, self.variant), self.batch)


class Skipped(Record):
    """A path that this machine does not have."""

    path: str
    reason: str
    remedy: str


class Ceiling(Record):
    """The best of several timings of one large matrix product on this GPU."""

    precision: Half
    side: int
    """Of the square matrices."""
    tflops: float


class GpuResults(Record):
    """A run of the suite, or several on one machine."""

    schema_version: Literal[1] = 1
    name: str
    command: str
    machine: dict[str, Any]
    ceilings: tuple[Ceiling, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    rows: tuple[Row, ...] = ()

    def with_row(self, row: Row) -> GpuResults:
        """These results with a row that replaces an earlier one of its key."""
        return self.model_copy(update={"rows": (*(one for one in self.rows if one.key != row.key), row)})

    @property
    def done(self) -> frozenset[Key]:
        """What need not be measured again. What failed is tried again."""
        return frozenset(row.key for row in self.rows if row.measured is not None)

    @property
    def failed(self) -> tuple[Row, ...]:
        """Rows that have a reason in place of a measurement."""
        return tuple(row for row in self.rows if row.measured is None)

    def ceiling(self, precision: Half) -> float | None:
        """TFLOP/s of the matmul at a precision, or null where it was not measured."""
        return next((one.tflops for one in self.ceilings if one.precision == precision), None)


def resume(path: Path, fresh: GpuResults) -> GpuResults:
    """What an earlier run of the suite on this machine left in a file, to be carried on; `fresh` where there is none.

    Raises:
        InputError: the file is damaged, or of another machine or of other versions.
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
    """Write the file whole, or leave it as it was.

    Raises:
        InputError: it cannot be written.
    """
    write_atomically(path, results.to_json())


def achieved_tflops(flops: int, milliseconds: tuple[float, ...]) -> float:
    """TFLOP/s by the median of the times of one batch."""
    return flops / (float(np.median(milliseconds)) * 1e9)


def _setup(machine: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for rows to be compared: clocks and free memory change from one minute to the next."""
    gpus = [{name: gpu.get(name) for name in ("name", "capability", "driver")} for gpu in machine.get("gpus", [])]
    return {"cpu": machine.get("cpu"), "packages": machine.get("packages"), "gpus": gpus}
