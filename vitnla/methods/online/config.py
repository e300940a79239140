"""Settings of the slide deck's online methods."""

from __future__ import annotations

from pydantic import Field

from vitnla.common.schema import Record


class CholeskyOnlineConfig(Record):
    """Settings of `cholesky-online`: the ridge added to x x^T before it is factored, relative to its mean diagonal."""

    epsilon: float = Field(default=1e-3, gt=0)


class TruncationConfig(Record):
    """Settings of the methods that truncate an activation."""

    rank: int | None = Field(default=None, ge=1)
    """Rank of the truncation; `None` is half of the full rank, rounded up."""


class SvdFullConfig(Record):
    """No settings: every singular value is kept."""


class CholeskySymmetricConfig(Record):
    """No settings: the head's width is unchanged."""
