"""The tables of `vitdeploy parity` and `vitdeploy verify` for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from runtime.check.bundle_check import Check
from runtime.check.layer_parity import Departure, LayerError
from runtime.check.parity import ParityRow
from runtime.report.terminal.fit import Column, Fitted
from runtime.report.text import MISSING, percent


def parity_table(rows: Sequence[ParityRow]) -> Group:
    """One row per bundle and runtime: the largest relative difference of a logit, its tolerance, and the accuracy."""
    columns = [
        Column("Bundle", [row.bundle for row in rows], numeric=False),
        Column("Runtime", [row.runtime for row in rows], numeric=False),
        Column("Verdict", [row.verdict for row in rows], numeric=False),
        Column("Max rel.", [MISSING if row.max_rel is None else f"{row.max_rel:.1e}" for row in rows]),
        Column("Limit", [f"{row.tolerance:.0e}" for row in rows]),
        Column("Top-1 %", [percent(row.top1) for row in rows], rank=1),
        Column("Agree %", [percent(row.agreement) for row in rows], rank=2),
        Column("Lost", [_count(row.lost) for row in rows], rank=3),
        Column("Gained", [_count(row.gained) for row in rows], rank=4),
        Column("McNemar p", [_decimals(row.p_value, 3) for row in rows], rank=5),
        Column("KL", [MISSING if row.divergence is None else f"{row.divergence:.1e}" for row in rows], rank=6),
        Column("ECE %", [percent(row.calibration_error) for row in rows], rank=7),
        Column("Cosine", [_decimals(row.cosine, 4) for row in rows], rank=8),
    ]
    errors = [Text(f"{row.bundle} on {row.runtime}: {row.error}", style="red") for row in rows if row.error is not None]
    return Group(Fitted(columns, {}), *errors)


def _decimals(value: float | None, places: int) -> str:
    return MISSING if value is None else f"{value:.{places}f}"


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


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


def departure_table(found: Departure) -> Group:
    """One row per part of the network, the first that departed marked, and one sentence of what it means."""
    rows = found.layers
    columns = [
        Column("Layer", [row.layer for row in rows], numeric=False),
        Column("Part", [row.part for row in rows], numeric=False),
        Column("Rel. error", ["not finite" if row.relative_error is None else f"{row.relative_error:.1e}" for row in rows]),
        Column("Cosine", [MISSING if row.cosine is None else f"{row.cosine:.6f}" for row in rows]),
        Column("", [_mark(found, place) for place in range(len(rows))], numeric=False),
    ]
    title = f"\n{found.bundle} on {found.runtime}, {found.precision}, against {found.reference}"
    return Group(Text(title, style="bold"), Fitted(columns, {}), Text(conclusion(found)))


def conclusion(found: Departure) -> str:
    """What the table says, in a sentence."""
    limit = f"{found.tolerance:.0e}"
    steepest = "" if found.steepest is None else f" The error grows most at {_name(found.layers[found.steepest])}."
    if found.first is None:
        last = found.layers[-1].relative_error
        return f"No layer departs: the output is within {limit} ({last:.1e}; {_probes(found)}).{steepest}"
    last = found.layers[-1].relative_error
    again = f" The output is within it again ({last:.1e})." if last is not None and last <= found.tolerance else ""
    where = f"{_name(found.layers[found.first])} (found in {_probes(found)})"
    return f"The first to depart, by more than {limit}, is {where}.{again}{steepest}"


def _mark(found: Departure, place: int) -> str:
    if place == found.first:
        return "<- first departure"
    return "<- grows most" if place == found.steepest else ""


def _name(row: LayerError) -> str:
    return f"{row.layer} {row.part}"


def _probes(found: Departure) -> str:
    return f"{found.probes} probe{'' if found.probes == 1 else 's'}"


def _exponent(value: float | None, decimals: int) -> str:
    return MISSING if value is None else f"{value:.{decimals}e}"
