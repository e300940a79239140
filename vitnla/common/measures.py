"""Records about a model that methods, bundles and results share: costs, accuracies, and a row per linear."""

from __future__ import annotations

import math
from typing import Any, Literal

from vitnla.common.schema import Record


class Cost(Record):
    """A count for the dense source and for this model, over the encoder's linears."""

    dense: int
    model: int

    @property
    def ratio(self) -> float:
        """model / dense."""
        return self.model / self.dense


class LayerRow(Record):
    """The result of a method for one linear. `rank` is null where it stayed dense, at its old width or a smaller one."""

    block: int
    linear: str
    rank: int | None
    full_rank: int
    macs: int
    parameters: int
    relative_error: float
    """||(W - What) x + b - bhat|| / ||W x - mean|| over the calibration tokens: 0 is exact, 1 predicts the mean.

    Of narrowed linears, it is that of what they give together: of fc2's output for fc1 and fc2, of the attention scores for
    qkv, of proj's output, values included, for proj.
    """
    retained_energy: float
    """Share of the energy that was kept: of the (weighted) squared singular values, or of the variance of that output."""
    shape: tuple[int, int] | None = None
    """(out, in) features now; null in files written before widths could change."""
    dense_shape: tuple[int, int] | None = None
    """(out, in) features of the linear that it was made from."""

    @property
    def narrowed(self) -> bool:
        """True if its width differs from that of the linear that it was made from."""
        return self.shape != self.dense_shape

    @property
    def kept(self) -> float | None:
        """Rank over full rank, or new weights over old ones where it became narrower; null where it stayed as it was."""
        if self.rank is not None:
            return self.rank / self.full_rank
        if self.shape is None or self.dense_shape is None or not self.narrowed:
            return None
        return math.prod(self.shape) / math.prod(self.dense_shape)


class Distillation(Record):
    """The distillation of a decomposed model from its teacher."""

    teacher: str
    """The model SPEC that was given."""
    teacher_sha256: str
    data: str
    split: str
    images: int
    """Number of images of that split that it was trained on."""
    epochs: int
    best_epoch: int
    """The epoch whose weights were kept; 0 is the student as it was."""
    settings: dict[str, Any]
    """The `DistillConfig`, as JSON."""


class Accuracy(Record):
    """Top-1 of the dense source and of this model, as fractions, and how often the two agree, on `images` images of `split`.

    What cannot be measured is null, and `not_measured` says why.
    """

    split: str
    fingerprint: str
    """`Split.fingerprint()` of the images used."""
    images: int
    dense_top1: float | None
    top1: float | None
    agreement: float | None
    """Null where the model gives features, whose largest is no answer."""
    columns: tuple[int, ...] | None = None
    """The model's class of each class of the data, among which answers were scored; null where they are the same."""
    not_measured: str | None = None
    """Why the labels say nothing about this model: it has other classes, or none."""


class LossStage(Record):
    """The change by one step between the dense source and the deployed model, on `Accuracy.images` images."""

    stage: Literal["preprocessing", "decomposition", "precision", "runtime"]
    before: str
    """The model before this step, and the runtime that ran it."""
    after: str
    top1: float | None
    """After this step, a fraction. Null, as are the next three, where accuracy was not measured."""
    lost_points: float | None
    """Top-1 points lost by this step; negative where it gained."""
    lost: int | None
    """Images right before and wrong after."""
    gained: int | None
    """The reverse."""
    flips: int
    """Images whose class changed, right or wrong."""
    flip_margin: float | None
    """Median, over the flips, of the probability of the class before less that of the runner-up: near 0, it was undecided anyway.
    Null without flips."""
    typical_margin: float
    """The same median over all images."""
    logit_error: float
    """Root mean square of the logits' change / that of the logits before, less their mean over the classes."""
