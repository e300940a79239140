"""Helpers shared by methods with a budget: checks of its settings, and the widths within it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from vitnla.allocation import Untouched, WidthOptions, knapsack, uniform
from vitnla.common.errors import InputError

Allocation = Literal["uniform", "knapsack"]


def with_default_target(values: Any, instead: Sequence[str], target: float) -> Any:
    """Return a config's values, with `target_macs` set to `target` where neither it nor a setting of `instead` is given.

    The default is stored so that the record states the target that was used.
    """
    names = (*instead, "target_macs")
    if isinstance(values, Mapping) and all(values.get(name) is None for name in names):
        return {**values, "target_macs": target}
    return values


def check_share(name: str, share: float | None) -> None:
    """Refuse a share that is not above 0 and at most 1."""
    if share is not None and not 0 < share <= 1:
        hint = "1 keeps everything, 0.65 keeps 65 %"
        raise InputError(f"{name}: expected a share above 0 and at most 1, got {share:g}", hint)


def widths_within(
    layers: Sequence[WidthOptions], dense_macs: int, target: float, allocation: Allocation, multiple: int
) -> list[int]:
    """Return the width of each of `layers` such that all encoder linears together keep the share `target` of `dense_macs`.

    Raises:
        InputError: the target cannot be attained by these layers alone; names the attainable range.
    """
    rest = dense_macs - sum(layer.dense_macs for layer in layers)
    budgeted = uniform if allocation == "uniform" else knapsack
    *chosen, _ = budgeted([*layers, Untouched(rest)], target, multiple)
    return [layer.full if width is None else width for layer, width in zip(layers, chosen, strict=True)]
