"""Define the columns of a study, for the terminal, the page and CSV alike."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Group
from rich.table import Table
from rich.text import Text

from runtime.report.study.summary import Spread, Summary, epoch_s, failed, images_per_s, latency_ms, summarise, warnings
from runtime.report.text import MISSING, percent, significant, times
from runtime.results.study import StudyRow


@dataclass(frozen=True)
class Column:
    """One column: its heading, the figure over seeds, and how a number of it is written."""

    heading: str
    spread: Callable[[Summary], Spread | None]
    text: Callable[[float | None], str] = significant

    def show(self, summary: Summary, between: str = " ") -> str:
        """Return the mean, and the range where seeds differ in the shown digits: `83.10 [82.97, 83.30]`."""
        spread = self.spread(summary)
        if spread is None:
            return MISSING
        mean, low, high = (self.text(value) for value in (spread.mean, spread.low, spread.high))
        return mean if low == high else f"{mean}{between}[{low}, {high}]"


def _points(value: float | None) -> str:
    """Return a difference of fractions in points, with its sign."""
    return MISSING if value is None else f"{100 * value:+.2f}"


def accuracy_columns(summaries: Sequence[Summary]) -> list[Column]:
    """Return the columns of accuracy and of the time to make each method, without those that no row has a figure for."""
    every = [
        Column("Top-1 %", lambda summary: summary.spread(lambda row: row.top1), percent),
        Column("vs dense, points", lambda summary: None if summary.is_dense else summary.change(lambda row: row.top1), _points),
        Column("Train s/epoch", lambda summary: summary.spread(epoch_s)),
        Column("× dense", lambda summary: None if summary.is_dense else summary.ratio(epoch_s), times),
        Column("Calibrate s", lambda summary: summary.spread(lambda row: row.calibrate_s)),
        Column("Decompose s", lambda summary: summary.spread(lambda row: row.decompose_s)),
    ]
    return _with_figures(every, summaries)


def cost_columns(summaries: Sequence[Summary]) -> list[Column]:
    """Return the columns of the costs of running and training each model, without those that no row has a figure for."""
    batches = sorted({point.batch for summary in summaries for row in summary.rows for point in row.inference}) or [1]
    every = [
        Column(f"ms, batch {batches[0]}", lambda summary: summary.spread(latency_ms)),
        Column(f"Images/s, batch {batches[-1]}", lambda summary: summary.spread(images_per_s)),
        Column("Infer MiB", lambda summary: summary.spread(lambda row: row.inference_peak_mb)),
        Column("Train MiB", lambda summary: summary.spread(lambda row: row.training_peak_mb)),
        Column("Parameters", lambda summary: summary.spread(lambda row: row.parameters)),
        Column("MACs", lambda summary: summary.spread(lambda row: row.macs.ratio if row.macs else None), times),
    ]
    return _with_figures(every, summaries)


def _with_figures(every: Sequence[Column], summaries: Sequence[Summary]) -> list[Column]:
    return [column for column in every if any(column.spread(summary) is not None for summary in summaries)]


def epoch_columns(summaries: Sequence[Summary]) -> list[Column]:
    """Return a column of test accuracy for each epoch."""
    epochs = sorted({epoch for summary in summaries for epoch, _ in summary.curve()})
    return [Column(f"Epoch {epoch}", partial(_after, epoch), percent) for epoch in epochs]


def _after(epoch: int, summary: Summary) -> Spread | None:
    return dict(summary.curve()).get(epoch)


def study_tables(rows: Sequence[StudyRow]) -> Group:
    """Return tables of accuracy, of cost and of the epochs for the terminal, and the failures."""
    summaries = summarise(rows)
    curves = [summary for summary in summaries if summary.curve()]
    parts: list[Table | Text] = [
        _table("Accuracy and time", summaries, accuracy_columns(summaries)),
        _table("Inference, peak memory and size", summaries, cost_columns(summaries)),
        _table("Test top-1 % after each epoch", curves, epoch_columns(curves)),
    ]
    parts += [Text(warning, style="dim") for warning in warnings(rows)]
    parts += [Text(f"{row.key} could not be done: {row.error}", style="red") for row in failed(rows)]
    return Group(*parts)


def _table(title: str, summaries: Sequence[Summary], shown: Sequence[Column]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), title=title, title_justify="left")
    table.add_column("Method", no_wrap=True)
    for column in shown:
        widest = max(map(len, column.heading.split()))
        table.add_column(column.heading, justify="right", overflow="fold", min_width=widest)
    for summary in summaries:
        table.add_row(summary.label, *(column.show(summary, "\n") for column in shown))
    return table


def rows_csv(rows: Sequence[StudyRow]) -> str:
    """Return CSV with one line per row, failed ones included, at full precision; accuracies are fractions."""
    return _csv([_flat(row) for row in rows])


def epochs_csv(rows: Sequence[StudyRow]) -> str:
    """Return CSV with one line per epoch of each row."""
    return _csv(
        [
            {"method": row.method, "label": row.label, "seed": row.seed, **point.model_dump()}
            for row in rows
            for point in row.epochs
        ]
    )


def _flat(row: StudyRow) -> dict[str, object]:
    return {
        "method": row.method,
        "label": row.label,
        "kind": row.kind,
        "seed": row.seed,
        "top1": row.top1,
        "epochs": len(row.epochs),
        "train_s_per_epoch": epoch_s(row),
        "calibrate_s": row.calibrate_s,
        "decompose_s": row.decompose_s,
        "latency_ms": latency_ms(row),
        "images_per_s": images_per_s(row),
        "inference_peak_mb": row.inference_peak_mb,
        "training_peak_mb": row.training_peak_mb,
        "parameters": row.parameters,
        "macs": row.macs.model if row.macs else None,
        "macs_ratio": row.macs.ratio if row.macs else None,
        "device": row.device,
        "created": row.created,
        "error": row.error,
    }


def _csv(lines: Sequence[dict[str, object]]) -> str:
    stream = io.StringIO()
    if lines:
        writer = csv.DictWriter(stream, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return stream.getvalue()
