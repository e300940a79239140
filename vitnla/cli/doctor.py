"""`vitdeploy doctor`."""

from __future__ import annotations

from vitnla.cli.output import Json, emit


def doctor(json: Json = False) -> None:
    """Say what runs on this machine, why the rest does not, and how to mend it."""
    from rich.console import Console
    from rich.table import Table

    from runtime.machine import machine_facts
    from runtime.runners.registry import runner, runner_names

    machine = machine_facts()
    available = {name: runner(name).availability() for name in runner_names()}
    if json:
        emit({"machine": machine, "runtimes": {name: vars(answer) for name, answer in available.items()}})
        return
    console = Console()
    runtimes = Table("runtime", "runs here", "why not", "remedy", box=None)
    for name, answer in available.items():
        runtimes.add_row(name, "[green]yes[/]" if answer.ok else "[red]no[/]", answer.reason, answer.remedy)
    console.print(runtimes)
    facts = Table("machine", "", box=None)
    for name, value in machine.items():
        facts.add_row(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    console.print(facts)
