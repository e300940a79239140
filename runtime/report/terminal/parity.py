"""The tables of `vitdeploy parity` and `vitdeploy verify` for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from runtime.check.bundle_check import Check
from runtime.check.layer_parity import LayerParity, LayerParityRow
from runtime.check.parity import ParityRow
from runtime.report.terminal.fit import Column, FittedTable
from runtime.report.text import MISSING, percent


def parity_table(rows: Sequence[ParityRow]) -> Group:
    """Return one row per bundle and runtime: the largest relative difference of a logit, its tolerance, and the accuracy."""
    columns = [
        Column("Bundle", [row.bundle for row in rows], numeric=False),
        Column("Runtime", [row.runtime for row in rows], numeric=False),
        Column("Verdict", [row.verdict for row in rows], numeric=False),
        Column("Max rel.", [_exponent(row.max_rel, 1) for row in rows]),
        Column("Limit", [_exponent(row.tolerance, 0) for row in rows]),
        Column("Top-1 %", [percent(row.top1) for row in rows], rank=1),
        Column("Agree %", [percent(row.agreement) for row in rows], rank=2),
        Column("Lost", [_count(row.lost) for row in rows], rank=3),
        Column("Gained", [_count(row.gained) for row in rows], rank=4),
        Column("McNemar p", [_decimals(row.p_value, 3) for row in rows], rank=5),
        Column("KL", [_exponent(row.divergence, 1) for row in rows], rank=6),
        Column("ECE %", [percent(row.calibration_error) for row in rows], rank=7),
        Column("Cosine", [_decimals(row.cosine, 4) for row in rows], rank=8),
    ]
    errors = [Text(f"{row.bundle} on {row.runtime}: {row.error}", style="red") for row in rows if row.error is not None]
    return Group(FittedTable(columns, {}), *errors)


def verification_table(checks: Sequence[Check]) -> Group:
    """Return one row per bundle and runtime; below them the reasons of those that were skipped or failed."""
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
        FittedTable(columns, {}),
        *notes,
        *(Text(f"{check.bundle} on {check.runtime}: {check.reason}", style="red") for check in failed),
    )


def layer_parity_table(parity: LayerParity) -> Group:
    """Return one row per part of the network, the first over the tolerance marked, and one sentence that sums it up."""
    rows = parity.layers
    columns = [
        Column("Layer", [row.layer for row in rows], numeric=False),
        Column("Part", [row.part for row in rows], numeric=False),
        Column("Rel. error", ["not finite" if row.relative_error is None else f"{row.relative_error:.1e}" for row in rows]),
        Column("Cosine", [_decimals(row.cosine, 6) for row in rows]),
        Column("", [_mark(parity, index) for index in range(len(rows))], numeric=False),
    ]
    title = f"\n{parity.bundle} on {parity.runtime}, {parity.precision}, against {parity.reference}"
    return Group(Text(title, style="bold"), FittedTable(columns, {}), Text(conclusion(parity)))


def conclusion(parity: LayerParity) -> str:
    """Return one sentence: the first part over the tolerance, or that there is none, and where the error grows most."""
    limit = f"{parity.tolerance:.0e}"
    steepest = "" if parity.steepest is None else f" The error grows most at {_name(parity.layers[parity.steepest])}."
    last = parity.layers[-1].relative_error
    if parity.first is None:
        return f"No layer is over the tolerance of {limit}: the output is at {last:.1e} ({_probes(parity)}).{steepest}"
    again = f" The output is within it again ({last:.1e})." if last is not None and last <= parity.tolerance else ""
    where = f"{_name(parity.layers[parity.first])} (found in {_probes(parity)})"
    return f"The first part over the tolerance of {limit} is {where}.{again}{steepest}"


def _mark(parity: LayerParity, index: int) -> str:
    if index == parity.first:
        return "<- first over the tolerance"
    return "<- grows most" if index == parity.steepest else ""


def _name(row: LayerParityRow) -> str:
    return f"{row.layer} {row.part}"


def _probes(parity: LayerParity) -> str:
    return f"{parity.probes} probe{'' if parity.probes == 1 else 's'}"


def _decimals(value: float | None, places: int) -> str:
    return MISSING if value is None else f"{value:.{places}f}"


def _count(value: int | None) -> str:
    return MISSING if value is None else f"{value:,}"


def _exponent(value: float | None, decimals: int) -> str:
    return MISSING if value is None else f"{value:.{decimals}e}"
