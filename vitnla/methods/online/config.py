"""Settings of the slide deck's online methods."""

from __future__ import annotations

from pydantic import Field

from vitnla.common.schema import Record


class CholeskyOnlineConfig(Record):
    """How much of the mean diagonal is added to x x^T before it is factored."""

    epsilon: float = Field(default=1e-3, gt=0)


class TruncationConfig(Record):
    """How far the activation is truncated."""

    rank: int | None = Field(default=None, ge=1)
    """`None` is half of the full rank, rounded up."""


class SvdFullConfig(Record):
    """Nothing to choose: every singular value is kept."""


class CholeskySymmetricConfig(Record):
    """Nothing to choose: the head's width stays."""
