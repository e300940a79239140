"""The schema of bench results: append-only JSON Lines, one cell a line, each complete in itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vitnla.common.jsonl import append_records, read_records
from vitnla.common.measures import Accuracy, Cost, LayerRow
from vitnla.common.schema import Record

Scenario = Literal["single-stream", "offline"]


class Latency(Record):
    """Percentiles of the time of one call, in milliseconds; null where the sample is too small to support them."""

    p50: float
    p90: float | None
    p99: float | None


class Ratio(Record):
    """Speed relative to the cell `baseline`, paired round by round, with a bootstrap 95 % interval. Above 1 is faster."""

    baseline: str
    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["faster", "slower", "no difference"]:
        """An interval that holds 1 is no difference."""
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "no difference"


class Cell(Record):
    """One bundle on one runtime at one batch size. `error` is set, and the measurements are null, where it could not be run."""

    schema_version: Literal[1] = 1
    run: str
    """Identifier shared by the cells that were measured together, interleaved."""
    created: str
    command: str
    bundle: str
    bundle_path: str
    method: str
    runtime: str
    precision: str
    batch: int
    scenario: Scenario
    error: str | None = None
    images_per_s: float | None = None
    latency_ms: Latency | None = None
    samples_ms: tuple[float, ...] = ()
    """Raw latencies, in order, all rounds."""
    rounds_images_per_s: tuple[float, ...] = ()
    """Throughput of each interleaved round: the pairs from which ratios are made."""
    warnings: tuple[str, ...] = ()
    load_s: float | None = None
    first_inference_ms: float | None = None
    peak_rss_mb: float | None = None
    """Peak resident memory of a fresh process above its imported libraries, MiB."""
    model_mb: float | None = None
    """The ONNX model on disk, MiB."""
    macs: Cost | None = None
    parameters: Cost | None = None
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    agreement: float | None = None
    """Share of images on which the class equals the dense torch model's."""
    accuracy_images: int | None = None
    export_accuracy: Accuracy | None = None
    layers: tuple[LayerRow, ...] = ()
    ratio: Ratio | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    """What the runtime really used."""
    machine: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """How tables and ratios call this cell."""
        return f"{self.bundle}/{self.runtime}/{self.precision}/b{self.batch}"


def append_cells(path: Path, cells: list[Cell]) -> None:
    """Append one line per cell.

    Raises:
        InputError: the file cannot be written.
    """
    append_records(path, cells, "choose another --results-file")


def read_cells(path: Path) -> list[Cell]:
    """Read a results file.

    Raises:
        InputError: the file is missing, empty, cut in the middle, or of another schema; names the line.
    """
    return read_records(path, Cell, "vitdeploy bench")
