"""Summarise the seeds of a method: means and ranges, and differences from the dense row of the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from runtime.results.study import DENSE, StudyRow


@dataclass(frozen=True)
class Spread:
    """Mean and range of a figure over seeds."""

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True)
class Summary:
    """The rows of one method with one configuration, one per seed."""

    label: str
    rows: tuple[StudyRow, ...]
    dense: tuple[StudyRow | None, ...]
    """The baseline of each row's seed."""

    def spread(self, figure: Callable[[StudyRow], float | None]) -> Spread | None:
        """Return mean and range over the rows that have the figure."""
        return spread_of(figure(row) for row in self.rows)

    def change(self, figure: Callable[[StudyRow], float | None]) -> Spread | None:
        """Return the difference of the figure from that of the dense row of the same seed."""
        return self._paired(figure, lambda ours, base: ours - base)

    def ratio(self, figure: Callable[[StudyRow], float | None]) -> Spread | None:
        """Return the ratio of the figure to that of the dense row of the same seed."""
        return self._paired(figure, lambda ours, base: ours / base if base else None)

    @property
    def is_dense(self) -> bool:
        """True if this is the baseline."""
        return self.rows[0].method == DENSE

    def curve(self) -> list[tuple[int, Spread]]:
        """Return test accuracy (a fraction) after each epoch; empty for methods that are not trained."""
        points: dict[int, list[float]] = {}
        for row in self.rows:
            for point in row.epochs:
                points.setdefault(point.epoch, []).append(point.test_top1)
        spreads = ((epoch, spread_of(values)) for epoch, values in sorted(points.items()))
        return [(epoch, spread) for epoch, spread in spreads if spread is not None]

    def _paired(
        self, figure: Callable[[StudyRow], float | None], combine: Callable[[float, float], float | None]
    ) -> Spread | None:
        pairs = [(figure(row), figure(base)) for row, base in zip(self.rows, self.dense, strict=True) if base is not None]
        return spread_of(combine(ours, base) for ours, base in pairs if ours is not None and base is not None)


def epoch_s(row: StudyRow) -> float | None:
    """Return the median seconds of training per epoch, which one disturbed epoch does not move."""
    return median(point.train_s for point in row.epochs) if row.epochs else None


def latency_ms(row: StudyRow) -> float | None:
    """Return the median time of a call at the smallest batch size, ms."""
    return min(row.inference, key=lambda point: point.batch).latency_ms if row.inference else None


def images_per_s(row: StudyRow) -> float | None:
    """Return the throughput at the largest batch size, images/s."""
    return max(row.inference, key=lambda point: point.batch).images_per_s if row.inference else None


def spread_of(values: Iterable[float | None]) -> Spread | None:
    """Return mean and range of the values that are not None; None without any."""
    known = [value for value in values if value is not None]
    return Spread(sum(known) / len(known), min(known), max(known), len(known)) if known else None


def summarise(rows: Sequence[StudyRow]) -> list[Summary]:
    """Group the finished rows by method and configuration: the baseline first, then in order of first appearance.

    Of several rows with the same key the last one counts.
    """
    done = finished(rows)
    dense = {row.seed: row for row in done.values() if row.method == DENSE}
    groups: dict[str, list[StudyRow]] = {}
    for row in sorted(done.values(), key=lambda row: row.method != DENSE):
        groups.setdefault(row.label, []).append(row)
    return [Summary(label, tuple(members), tuple(dense.get(row.seed) for row in members)) for label, members in groups.items()]


def finished(rows: Iterable[StudyRow]) -> dict[str, StudyRow]:
    """Return the rows without an error, by key."""
    return {row.key: row for row in rows if row.error is None}


def failed(rows: Sequence[StudyRow]) -> list[StudyRow]:
    """Return the last row of each key that never finished."""
    done = finished(rows)
    return list({row.key: row for row in rows if row.key not in done}.values())


def warnings(rows: Iterable[StudyRow]) -> list[str]:
    """Return the warnings of the finished rows."""
    return [
        f"{row.key}, batch {point.batch}: the speed was not yet stable after the warm-up"
        for row in finished(rows).values()
        for point in row.inference
        if not point.stable
    ]
