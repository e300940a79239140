"""`vitdeploy doctor`."""

from __future__ import annotations

from export.cli.output import Json, emit


def doctor(json: Json = False) -> None:
    """Say what runs on this machine, why the rest does not, and how to mend it."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from runtime.machine.advice import diagnose
    from runtime.machine.facts import machine_facts
    from runtime.machine.model_libraries import check_libraries
    from runtime.runners.ort import installed_providers
    from runtime.runners.registry import known_traits, runner, runner_names
    from runtime.runners.trt.cuda import has_driver

    machine = machine_facts()
    available = {name: runner(name).availability() for name in runner_names()}
    libraries = check_libraries()
    findings = diagnose(machine, installed_providers(), known_traits(), driver=has_driver())
    if json:
        runtimes_found = {name: vars(answer) for name, answer in available.items()}
        emit({"machine": machine, "runtimes": runtimes_found, "findings": [one.model_dump() for one in findings],
              "model_libraries": [one.model_dump() for one in libraries]})  # fmt: skip
        return
    console = Console()
    runtimes = Table("runtime", "runs here", "why not", "remedy", box=None)
    for name, answer in available.items():
        runtimes.add_row(name, "[green]yes[/]" if answer.ok else "[red]no[/]", answer.reason, escape(answer.remedy))
    console.print(runtimes)
    models = Table("models from", "version", "works here with the others", "why not", "remedy", box=None)
    for library in libraries:
        works = "[green]yes[/]" if library.ok else "[red]no[/]"
        models.add_row(library.name, library.version or "", works, escape(library.reason), escape(library.remedy))
    console.print(models)
    advice = Table("found", "so", "remedy", box=None)
    for one in findings:
        advice.add_row(one.found, one.means, escape(one.remedy))
    console.print(advice)
    facts = Table("machine", "", box=None)
    for name, value in machine.items():
        facts.add_row(name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
    console.print(facts)
