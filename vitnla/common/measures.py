"""What methods, bundles and results say about a model: costs, accuracies, and a row per linear."""

from __future__ import annotations

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
    """What a method did to one linear. `rank` is null where it stayed dense."""

    block: int
    linear: str
    rank: int | None
    full_rank: int
    macs: int
    parameters: int
    relative_error: float
    """||(W - What) x + b - bhat|| / ||W x - mean|| over the calibration tokens: 0 is exact, 1 predicts the mean."""
    retained_energy: float
    """Share of the (weighted) squared singular values that was kept."""


class Accuracy(Record):
    """Top-1 of the dense source and of this model, as fractions, and how often the two agree, on `images` images of `split`."""

    split: str
    fingerprint: str
    """`Split.fingerprint()` of the images used."""
    images: int
    dense_top1: float
    top1: float
    agreement: float
