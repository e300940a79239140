"""Output of all commands: JSON on stdout on request, everything else on stderr."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from vitnla.common.errors import InputError, VitDeployError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; the rest goes to stderr.")]


def say(text: str) -> None:
    """Print a line on stderr, so that stdout stays machine-readable."""
    print(text, file=sys.stderr)


def complain(error: VitDeployError) -> None:
    """Print an error: one line, and a hint."""
    say(f"error: {error.message}")
    if error.hint:
        say(f"hint:  {error.hint}")


def emit(record: dict[str, Any]) -> None:
    """Print the JSON object of a command."""
    print(json.dumps(record, indent=2))


def command_line() -> str:
    """Return the command line as typed, so that a result can be reproduced."""
    return shlex.join(["vitdeploy", *sys.argv[1:]])


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """Show a spinner with the current step; if stderr is no terminal, print one line per kind of step."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as spinner:
            yield spinner.update
        return
    last = ""

    def step(text: str) -> None:
        nonlocal last
        # Counters change at every call ("calibrating on 32 of 1000 images"): a log wants the step once.
        kind = "".join(letter for letter in text if not letter.isdigit())
        if kind != last:
            say(text)
        last = kind

    yield step


@contextmanager
def bar(description: str) -> Iterator[Callable[[float, float, str], None]]:
    """Show a progress bar with an estimate; yield a function of the work done, the total, and the current item."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total, item: progress.update(task, completed=done, total=total, description=f"{description}: {item}")


def assignments(words: Iterable[str]) -> dict[str, str]:
    """Parse `NAME=VALUE` words to a mapping; names may be written with hyphens.

    Raises:
        InputError: a word holds no `=`.
    """
    pairs = [word.partition("=") for word in words]
    if broken := [name for name, equals, _ in pairs if not equals]:
        raise InputError(f"--set: expected NAME=VALUE, got '{broken[0]}'", "such as --set rank_multiple=16")
    return {name.strip().replace("-", "_"): value.strip() for name, _, value in pairs}


def integers(text: str, what: str, least: int = 1) -> tuple[int, ...]:
    """Parse whole numbers of at least `least`, separated by commas.

    Raises:
        InputError: a word is no such number.
    """
    try:
        numbers = tuple(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError as error:
        raise InputError(f"{what}: expected whole numbers separated by commas, got '{text}'", "such as 1,16") from error
    if min(numbers) < least:
        raise InputError(f"{what}: expected at least {least}, got {min(numbers)}", "such as 1,16")
    return numbers


def numbers(text: str, what: str) -> tuple[float, ...]:
    """Parse numbers separated by commas.

    Raises:
        InputError: a word is no number, or not a finite one.
    """
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError as error:
        raise InputError(f"{what}: expected numbers separated by commas, got '{text}'", "such as 0.485,0.456,0.406") from error
    if not all(math.isfinite(number) for number in found):
        raise InputError(f"{what}: expected finite numbers, got '{text}'", "such as 0.485,0.456,0.406")
    return found


def seconds(text: str, what: str) -> float:
    """Parse a duration such as `90s`, `20m` or `1h` to seconds; a bare number is seconds.

    Raises:
        InputError: it is no such thing.
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    digits, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1.0)
    try:
        return float(digits) * unit
    except ValueError as error:
        raise InputError(f"{what}: expected a duration, got '{text}'", "such as 90s, 20m or 1h") from error
