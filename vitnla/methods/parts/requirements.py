"""Checks shared by methods: calibration statistics are given, and the model permits the change."""

from __future__ import annotations

from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.model.config import Permission


def require_statistics(method: str, statistics: Statistics | None) -> Statistics:
    """Return the statistics.

    Raises:
        InputError: there are none.
    """
    if statistics is None:
        raise InputError(f"{method}: expected calibration statistics, got none", "pass calibration data with --data")
    return statistics


def require_permission(permission: Permission, where: str, expected: str) -> None:
    """Refuse to do something to a part of a model whose config does not allow it.

    Args:
        permission: what the config says, such as `ViTConfig.can_narrow_scores(block)`.
        where: the part, such as `block 3`.
        expected: what the part would have to be.

    Raises:
        InputError: it is not allowed; names the kind and its reason.
    """
    if not permission:
        hint = "decompose the dense model, or choose a method that leaves this part as it is"
        raise InputError(f"{where}: expected {expected}, got {permission.refusal}", hint)
