"""`vitdeploy verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.bundles import DEFAULT_THREADS, Threads
from export.cli.output import Json, bar, emit


def verify(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders.")],
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help="Repeatable; one that is absent is then an error. Default: all present.")
    ] = None,
    threads: Threads = DEFAULT_THREADS,
    json: Json = False,
) -> None:
    """Check a bundle's hashes, and its reference inputs on every runtime present."""
    from rich.console import Console

    from runtime.bundle.schema import open_bundle
    from runtime.check.bundle_check import self_check, verification_targets
    from runtime.report.terminal.parity import verification_table
    from vitnla.common.errors import MissingDependencyError, VerdictError

    targets = verification_targets(runtime)
    opened = [open_bundle(folder) for folder in bundles]
    pairs = [(bundle, target) for bundle in opened for target in targets]
    checks = []
    with bar("verify") as progress:
        for done, (bundle, target) in enumerate(pairs):
            progress(done, len(pairs), f"{bundle.name} on {target.label}")
            checks.append(self_check(bundle, target, threads=threads, required=runtime is not None))
    if json:
        hashed = [{"bundle": bundle.name, "path": str(bundle.folder), "files": len(bundle.manifest.files)} for bundle in opened]
        emit({"hashes": hashed, "checks": [check.model_dump() for check in checks]})
    else:
        console = Console()
        for bundle in opened:
            console.print(
                f"{bundle.folder}: {len(bundle.manifest.files)} files match their hashes", highlight=False, markup=False
            )
        console.print(verification_table(checks))
    if failed := [f"{check.bundle} on {check.runtime}" for check in checks if check.verdict == "not met"]:
        raise VerdictError(f"the self-check failed: {', '.join(failed)}", "the table shows by how much, and on which runtime")
    if all(check.verdict == "skipped" for check in checks):
        raise MissingDependencyError("the hashes match, but no runtime is here to check the outputs", "see vitdeploy doctor")
