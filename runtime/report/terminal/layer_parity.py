"""The table of `vitdeploy parity --layers`."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from runtime.check.layer_parity import Departure, LayerError
from runtime.report.numbers import MISSING
from runtime.report.terminal.fit import Column, Fitted


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
