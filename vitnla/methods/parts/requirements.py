"""The check that methods with calibration share."""

from __future__ import annotations

from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError


def require_statistics(method: str, statistics: Statistics | None) -> Statistics:
    """The statistics.

    Raises:
        InputError: there are none.
    """
    if statistics is None:
        raise InputError(f"{method}: expected calibration statistics, got none", "pass calibration data with --data")
    return statistics
