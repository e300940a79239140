"""`vitdeploy study`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.cli.bundles import ARTIFACTS, DEFAULT_THREADS, Threads
from export.cli.output import Json, assignments, bar, command_line, emit, say
from vitnla.common.errors import InputError

if TYPE_CHECKING:
    from runtime.results.study import StudyRow


def study(
    data: Annotated[str, typer.Option(help="Data SPEC with a train split, such as cifar10:DIR.")],
    methods: Annotated[str, typer.Option(help="Names separated by commas. Default: every method.")] = "",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="METHOD.NAME=VALUE, a setting of a method; repeatable.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Model shape and schedule.")] = "deck",
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's number.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, ... of every row.")] = 1,
    train_images: Annotated[int | None, typer.Option(min=2, help="Only the first so many. Default: all.")] = None,
    threads: Threads = DEFAULT_THREADS,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; the rows that it has are not made again.")] = ARTIFACTS
    / "study",
    html: Annotated[bool, typer.Option("--html/--no-html", help="Also write a page with plots.")] = True,
    json: Json = False,
) -> None:
    """Train and measure every method beside the dense baseline: time, memory and accuracy."""
    from rich.console import Console

    from export.study.request import StudyRequest
    from export.study.run_study import StudyProgress, run_study
    from runtime.report.study import require_html, write_study
    from runtime.report.study.tables import study_tables

    if html:
        require_html()
    chosen = tuple(name for name in methods.split(",") if name)
    request = StudyRequest(
        data, chosen, _settings(setting or []), preset, epochs, seeds, train_images, threads, output, command_line()
    )
    with bar("study") as on_step:
        settings, rows = run_study(request, StudyProgress(on_step, _say_row))
    written = write_study(settings, rows, output, html=html)
    if json:
        emit({"rows": [row.model_dump(mode="json") for row in rows], "files": [str(path) for path in written]})
    else:
        Console().print(study_tables(rows))
    say(f"wrote {', '.join(map(str, written))}; the rows are in {output / 'results.jsonl'}")


def _say_row(row: StudyRow, remaining_s: float) -> None:
    said = f"could not be done: {row.error}" if row.top1 is None else f"test top-1 {row.top1:.2%}"
    say(f"{row.key}: {said} (about {remaining_s / 60:.0f} min left)")


def _settings(words: Iterable[str]) -> dict[str, dict[str, str]]:
    """`METHOD.NAME=VALUE` words by method."""
    grouped: dict[str, list[str]] = {}
    for word in words:
        method, dot, rest = word.partition(".")
        if not dot or "=" in method:
            raise InputError(f"--set: expected METHOD.NAME=VALUE, got '{word}'", "such as --set svd.target_macs=0.5")
        grouped.setdefault(method, []).append(rest)
    return {method: assignments(rest) for method, rest in grouped.items()}
