"""Settings of the baseline."""

from __future__ import annotations

from vitnla.common.schema import Record

NONE = "none"


class NoneConfig(Record):
    """No settings."""
