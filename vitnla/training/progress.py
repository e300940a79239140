"""Training progress on a terminal: a bar with a time estimate, and a line per epoch, also for log files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from vitnla.training.loop import EpochLog, Progress


@contextmanager
def console_progress(what: str = "training") -> Iterator[Progress]:
    """Yield callbacks that draw on stderr while the context is active."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def step(done: int, total: int, loss: float) -> None:
            bar.update(task, completed=done, total=total, description=f"{what}, loss {loss:.3f}")

        def epoch(log: EpochLog, remaining_s: float) -> None:
            mark = ", best so far" if log.best else ""
            console.print(
                f"epoch {log.epoch}: loss {log.train_loss:.4f}, validation top-1 {log.validation_top1:.2%}{mark} "
                f"({log.seconds:.0f} s, about {remaining_s / 60:.0f} min left)",
                highlight=False,
                soft_wrap=True,
            )

        def note(text: str) -> None:
            console.print(text, highlight=False, soft_wrap=True)

        def count(text: str, done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=text)

        yield Progress(on_step=step, on_epoch=epoch, on_count=count, on_note=note)
