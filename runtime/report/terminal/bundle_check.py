"""The table of `vitdeploy verify`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from runtime.check.bundle_check import Check
from runtime.report.numbers import MISSING
from runtime.report.terminal.fit import Column, Fitted


def verification_table(checks: Sequence[Check]) -> Group:
    """One row per bundle and runtime; below them why some were skipped, and what went wrong with others."""
    columns = [
        Column("Bundle", [check.bundle for check in checks], numeric=False),
        Column("Runtime", [check.runtime for check in checks], numeric=False),
        Column("Self-check", [check.verdict for check in checks], numeric=False),
        Column("Max rel.", [_exponent(check.max_rel, 1) for check in checks]),
        Column("Limit", [_exponent(check.tolerance, 0) for check in checks]),
    ]
    skipped = dict.fromkeys((check.runtime, check.reason) for check in checks if check.verdict == "skipped")
    notes = [Text(f"{runtime} was skipped: {reason}", style="dim") for runtime, reason in skipped]
    failed = [check for check in checks if check.verdict == "not met" and check.reason is not None]
    return Group(
        Fitted(columns, {}),
        *notes,
        *(Text(f"{check.bundle} on {check.runtime}: {check.reason}", style="red") for check in failed),
    )


def _exponent(value: float | None, decimals: int) -> str:
    return MISSING if value is None else f"{value:.{decimals}e}"
