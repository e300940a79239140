"""`vitdeploy bench --self-test`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.cli.output import bar, command_line, emit, say
from vitnla.common.errors import VerdictError
from vitnla.common.files import write_atomically

if TYPE_CHECKING:
    from runtime.bench.plan import Target
    from runtime.bundle.schema import Bundle


def run_self_test(bundle: Bundle, target: Target, threads: int, path: Path, *, json: bool) -> None:
    """Run it, write its result to `path`, and print it.

    Raises:
        VerdictError: the harness missed what is known.
    """
    from rich.console import Console
    from rich.table import Table

    from runtime.bench.self_test import LEAST_EQUAL, TOLERANCE, self_test

    with bar("self-test") as progress:
        found = self_test(bundle, target, threads=threads, command=command_line(), progress=progress)
    write_atomically(path, found.model_dump_json(indent=2) + "\n")
    if json:
        emit(found.model_dump(exclude={"aa_ratios"}))
    else:
        table = Table("quantity", "known", "measured", "deviation", "", box=None)
        for one in found.known:
            verdict = "[green]met[/]" if one.ok else "[red]missed[/]"
            table.add_row(one.quantity, f"{one.expected:g}", f"{one.measured:.4g}", f"{one.deviation:+.1%}", verdict)
        Console().print(table)
        equal = f"{found.aa_no_difference} of {found.aa_trials} times no difference"
        Console().print(
            f"{found.aa_bundle} on {found.aa_runtime} against itself: {equal} ({found.aa_intervals_with_one} of the 95 % intervals hold 1)"
        )
    say(f"written to {path}")
    if not found.ok:
        wanted = f"expected {TOLERANCE:.0%} at most and {LEAST_EQUAL:.0%} without a difference"
        raise VerdictError(
            f"the harness missed what is known on this machine: {wanted}", "end what else runs here, then try again"
        )
