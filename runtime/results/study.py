"""The schema of a study's results: append-only JSON Lines, one method at one seed a line, each complete in itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from vitnla.common.measures import Cost
from vitnla.common.schema import Record

Kind = Literal["online", "deployable", "trained"]
DENSE = "none"
"""The method that leaves the model as it is: the baseline."""


class StudySettings(Record):
    """The settings that all rows of a study share. Rows of other settings belong in another folder."""

    data: str
    fingerprint: str
    """Hash of the training and the test images."""
    train_images: int
    test_images: int
    calibration_images: int
    preset: str
    training: dict[str, Any]
    """The preset in full, as JSON, with seed 0."""
    batches: tuple[int, ...]
    """Batch sizes of the inference measurements."""
    threads: int


class EpochPoint(Record):
    """One epoch of training. Accuracies are fractions, of the moving average of the weights."""

    epoch: int
    train_s: float
    """Training alone, without the evaluations."""
    train_loss: float
    validation_top1: float
    test_top1: float
    kept: bool
    """True if this was the best epoch so far by validation; the last such epoch gives the other figures of the row."""


class InferencePoint(Record):
    """Speed of the row's model in eager PyTorch, at one batch size."""

    batch: int
    latency_ms: float
    """Median time of a call."""
    images_per_s: float
    stable: bool
    """True if the speed became stable during the warm-up."""


class StudyRow(Record):
    """One method at one seed. `error` is set, and the measurements are null, where it could not be done."""

    schema_version: Literal[1] = 1
    created: str
    command: str
    method: str
    kind: Kind
    config: dict[str, Any]
    label: str
    """The method and its settings, such as `svd target_macs=0.5`: rows of one label differ in nothing but the seed."""
    seed: int
    error: str | None = None
    epochs: tuple[EpochPoint, ...] = ()
    """The epochs of trained rows; deployable methods decompose the model that the dense row of their seed has trained."""
    calibrate_s: float | None = None
    """The pass over the calibration images, where the method needs it."""
    decompose_s: float | None = None
    top1: float | None = None
    """On the test split, of the epoch that validation chose."""
    inference: tuple[InferencePoint, ...] = ()
    inference_peak_mb: float | None = None
    """Peak memory of loading and running the largest batch in a fresh process, MiB above its imported libraries."""
    training_peak_mb: float | None = None
    """The same of training steps on every token."""
    macs: Cost | None = None
    """MACs of the encoder's linears, without those of decompositions at every step."""
    parameters: int | None = None
    """Parameters of the whole model."""
    device: str = ""
    machine: dict[str, Any] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """Identifier of the row within a study."""
        return row_key(self.label, self.seed)


def row_key(label: str, seed: int) -> str:
    """Method and settings, as tables show them."""
    return f"{label}, seed {seed}"
