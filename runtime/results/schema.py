"""The schema of bench results: append-only JSON Lines, one cell a line, each complete in itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, computed_field, model_validator

from vitnla.common.jsonl import append_records, read_records
from vitnla.common.measures import Accuracy, Cost, LayerRow, LossStage
from vitnla.common.schema import Record

Scenario = Literal["single-stream", "multi-stream", "offline", "server"]

Verdict = Literal["faster", "slower", "no difference", "inconclusive"]

_WIDER, _LEAST = 1.5, 0.01
MAX_INTERVAL_WIDTH = 0.25
"""Largest (high - low) / value of a ratio that may be called "no difference": wider ones would hide a difference of about 12 %."""


class Latency(Record):
    """Percentiles of the time of one call, in milliseconds; null where the sample is too small to support them."""

    p50: float
    p90: float | None
    p99: float | None


class Ratio(Record):
    """Speed relative to the cell `baseline`, paired round by round, with a bootstrap 95 % interval. Above 1 is faster.

    The speed is the throughput; in the server scenario at a given rate, where that is the same for all, 1 / mean latency.
    """

    baseline: str
    value: float
    low: float
    high: float
    of: Literal["throughput", "latency"] = "throughput"

    @model_validator(mode="before")
    @classmethod
    def _drop_stored_verdict(cls, fields: Any) -> Any:
        """Drop the verdict that files hold: it is computed anew, by the rule of this version."""
        return {name: value for name, value in fields.items() if name != "verdict"} if isinstance(fields, dict) else fields

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """Return what the interval supports; it is stored in JSON beside the ratio.

        `faster` or `slower`: a difference of at least 1 % whose interval, made half again as wide (in the logarithm), still leaves
        out 1. The 95 % interval alone would call one pair of equals in twenty different, and two processes that run the same thing
        may differ by some tenths of a percent for good. `inconclusive`: neither, and the interval is wider than
        `MAX_INTERVAL_WIDTH`, so equality is not shown either. See docs/measurement.md.
        """
        centre = math.log(self.value)
        low, high = (centre + _WIDER * (math.log(end) - centre) for end in (self.low, self.high))
        if low > 0 and self.value >= 1 + _LEAST:
            return "faster"
        if high < 0 and self.value <= 1 / (1 + _LEAST):
            return "slower"
        return "inconclusive" if self.high - self.low > MAX_INTERVAL_WIDTH * self.value else "no difference"

    @property
    def differs(self) -> bool:
        """True if the verdict is `faster` or `slower`."""
        return self.verdict in ("faster", "slower")


class TuneAnswer(Record):
    """Set in the cell that `vitdeploy tune` chose: the question it answers, and its gains."""

    question: str
    """Such as "the fastest within 1 point of top-1"."""
    gains: tuple[Ratio, ...]
    """Ratios to dense fp32 on the first runtime, and to the fastest dense cell within the loss; none to itself."""


class Server(Record):
    """Settings and outcome of the server scenario: queries arrive as a Poisson process and queue for one session."""

    rate: float
    """Queries per second, given or found."""
    searched: bool
    p99_bound_ms: float | None
    met: bool | None
    """True if p99 stayed within the bound; null without a bound, or where the sample supports no p99."""
    utilisation: float
    """Rate times mean time of a call: at 1 and above the queue grows without bound."""
    unserved: int
    """Queries that still waited when twice the time of the arrivals had passed."""

    @property
    def overloaded(self) -> bool:
        """True if the queue grows without bound."""
        return self.utilisation >= 1 or self.unserved > 0


class BatchRate(Record):
    """A batch size that the offline search tried."""

    batch: int
    images_per_s: float


class Cell(Record):
    """One bundle on one runtime at one batch size. `error` is set, and the measurements are null, where it could not be run."""

    schema_version: Literal[1] = 1
    run: str
    """Identifier shared by the cells that were measured together, interleaved."""
    created: str
    command: str
    bundle: str
    bundle_path: str
    label: str | None = None
    """A short name to show instead of `bundle`, where it is unique within a section of a report."""
    method: str
    runtime: str
    precision: str
    batch: int
    scenario: Scenario
    activations: str | None = None
    """Kind of the int8 activations, where the runtime's quantiser has a choice; null in older files."""
    error: str | None = None
    answer: TuneAnswer | None = None
    """Set in the cell that `vitdeploy tune` chose."""
    images_per_s: float | None = None
    latency_ms: Latency | None = None
    samples_ms: tuple[float, ...] = ()
    """Raw latencies, in order, all rounds."""
    rounds_images_per_s: tuple[float, ...] = ()
    """Throughput of each interleaved round: the pairs from which ratios are made."""
    rounds_process: tuple[int, ...] = ()
    """The process that each round was measured in, by the round before which it was started; in older files, one all along."""
    first_round: int = 0
    """Number of the first of these rounds within the run; above 0 for a cell that failed and was tried again after an interruption."""
    rounds_latency_ms: tuple[float, ...] = ()
    """Server scenario: mean latency of each round."""
    server: Server | None = None
    batch_search: tuple[BatchRate, ...] = ()
    """Offline scenario: the batch sizes tried to find `batch`; empty where the batch was given."""
    cpus: tuple[int, ...] = ()
    """Logical processors that the worker was bound to, as the system said."""
    warnings: tuple[str, ...] = ()
    load_s: float | None = None
    first_inference_ms: float | None = None
    peak_rss_mb: float | None = None
    """Peak resident memory of a fresh process above its imported libraries, MiB."""
    device_mb: float | None = None
    """GPU memory that the driver says this process holds after its runs, MiB; null without a GPU, or where it does not say."""
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
    losses: tuple[LossStage, ...] = ()
    """Accuracy lost by each step of the export, on the images of `export_accuracy`; empty in files from before it was recorded."""
    layers: tuple[LayerRow, ...] = ()
    ratio: Ratio | None = None
    facts: dict[str, Any] = Field(default_factory=dict)
    """Versions, device, threads and more, as the runtime reports them."""
    machine: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identifier within a run, by which ratios refer to this cell."""
        return f"{self.bundle}/{self.runtime}/{self.precision}/b{self.batch}"

    @property
    def display_name(self) -> str:
        """Name of the bundle in tables and charts: its label, else its name."""
        return self.label or self.bundle

    @property
    def display_key(self) -> str:
        """The key with the display name of the bundle."""
        return f"{self.display_name}/{self.runtime}/{self.precision}/b{self.batch}"


def append_cells(path: Path, cells: list[Cell], on_cut: Callable[[str], None] = lambda notice: None) -> None:
    """Append one line per cell; `on_cut` hears of a cut last line, which is removed.

    Raises:
        InputError: the file cannot be written.
    """
    append_records(path, cells, "choose another --results-file", on_cut)


def read_cells(path: Path, on_cut: Callable[[str], None] | None = None) -> list[Cell]:
    """Read a results file; with `on_cut`, a cut last line is told to it and left out.

    Raises:
        InputError: the file is missing, empty, cut in the middle, or of another schema; names the line.
    """
    return read_records(path, Cell, "vitdeploy bench", on_cut)
