"""The rows of scripts/token_merging.py, their ratios, and the tables that docs/tune.md shows. No measuring here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import harmonic_mean
from typing import Any, NamedTuple

from runtime.stats import Interval, paired_ratio
from vitnla.common.schema import Record

UNMERGED = "0"
Key = tuple[str, str, int]
"""A bundle's name, the runtime, the batch size."""


class Rounds(NamedTuple):
    """Images/s of each interleaved round, and which of the cell's processes it was measured in."""

    images_per_s: tuple[float, ...]
    process: tuple[int, ...]


class Speed(Record):
    """One runtime at one batch size. Ratios are paired by round, with 95 % intervals; above 1 is faster."""

    runtime: str
    batch: int
    images_per_s: float
    ratio: Interval | None
    """Against the same model and precision without merging, on the same runtime at the same batch; null for that itself."""
    against_first: Interval | None
    """Against the first model in fp32 without merging, on the first runtime at the same batch; null for that itself."""
    rounds_images_per_s: tuple[float, ...]
    rounds_process: tuple[int, ...] = ()
    """See `runtime.results.Cell`."""


class Row(Record):
    """A model under a plan of merging, in one precision."""

    run: str
    """Shared by the rows that were measured together, interleaved."""
    created: str
    command: str
    bundle: str
    model: str
    plan: str
    merged_per_block: tuple[int, ...]
    tokens_share: float
    """Mean over the attentions and MLPs of the tokens that they are given, of those without merging."""
    precision: str
    split: str
    images: int
    top1: float
    top1_low: float
    top1_high: float
    agreement: float
    """With the same model in torch without merging."""
    parity: float
    """Largest difference of the fp32 graph's logits from torch's, relative to the largest logit."""
    speeds: tuple[Speed, ...] = ()
    machine: dict[str, Any]


def with_speeds(rows: Sequence[Row], rates: Mapping[Key, Rounds]) -> list[Row]:
    """The rows with every speed that was measured of their bundles. The first row is the one that all are compared with."""
    return [row.model_copy(update={"speeds": tuple(_speeds(row, rows, rates))}) for row in rows]


def _speeds(row: Row, rows: Sequence[Row], rates: Mapping[Key, Rounds]) -> list[Speed]:
    own = next(
        other for other in rows if (other.model, other.precision, other.plan) == (row.model, row.precision, UNMERGED)
    ).bundle
    found = []
    for (bundle, runtime, batch), rounds in rates.items():
        if bundle != row.bundle:
            continue
        first = next(rates[key] for key in rates if (key[0], key[2]) == (rows[0].bundle, batch))
        ratios = {"ratio": _ratio(rounds, rates.get((own, runtime, batch))), "against_first": _ratio(rounds, first)}
        found.append(
            Speed(
                runtime=runtime,
                batch=batch,
                images_per_s=harmonic_mean(rounds.images_per_s),
                rounds_images_per_s=rounds.images_per_s,
                rounds_process=rounds.process,
                **ratios,
            )
        )
    return found


def _ratio(rounds: Rounds, baseline: Rounds | None) -> Interval | None:
    if baseline is None or baseline is rounds:
        return None
    pairs = tuple(zip(rounds.process, baseline.process, strict=True))
    return paired_ratio(rounds.images_per_s, baseline.images_per_s, processes=pairs)


def markdown(rows: Sequence[Row]) -> str:
    """Two tables: what merging does to each model by itself, and all models against the first."""
    cells = sorted({(speed.runtime, speed.batch) for row in rows for speed in row.speeds})
    parts = [_table(rows, cells, "ratio")]
    if cells:
        parts += [
            "Against the first row; bold: on the front of its batch size, where nothing is as accurate and as fast on any runtime."
        ]
        parts += [_table(rows, cells, "against_first")]
    return "\n\n".join(parts)


def _table(rows: Sequence[Row], cells: Sequence[tuple[str, int]], kind: str) -> str:
    heads = [
        "model",
        "merged per block",
        "tokens",
        "precision",
        "top-1 % [95 %]",
        *(f"{name}, batch {batch}" for name, batch in cells),
    ]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(['---'] * len(heads))} |"]
    for row in rows:
        accuracy = f"{100 * row.top1:.2f} [{100 * row.top1_low:.2f}, {100 * row.top1_high:.2f}]"
        given = [f"`{row.model}`", row.plan, f"{row.tokens_share:.2f}", row.precision, accuracy]
        lines.append(f"| {' | '.join([*given, *(_cell(row, rows, cell, kind) for cell in cells)])} |")
    return "\n".join(lines)


def _cell(row: Row, rows: Sequence[Row], cell: tuple[str, int], kind: str) -> str:
    speed = _speed(row, cell)
    if speed is None:
        return "–"
    found: Interval | None = getattr(speed, kind)
    text = "1" if found is None else f"{found.value:.2f}× [{found.low:.2f}, {found.high:.2f}]"
    return f"**{text}**" if kind == "against_first" and (row.bundle, speed.runtime) in front(rows, cell[1]) else text


def _speed(row: Row, cell: tuple[str, int]) -> Speed | None:
    return next((speed for speed in row.speeds if (speed.runtime, speed.batch) == cell), None)


def front(rows: Sequence[Row], batch: int) -> set[tuple[str, str]]:
    """(bundle, runtime) of the cells at a batch size than which no other is at least as accurate and as fast, and better in one."""
    points = [
        (row.top1, speed.images_per_s, (row.bundle, speed.runtime))
        for row in rows
        for speed in row.speeds
        if speed.batch == batch
    ]
    return {
        name for top1, rate, name in points
        if not any(other[:2] != (top1, rate) and other[0] >= top1 and other[1] >= rate for other in points)
    }  # fmt: skip
