"""`vitdeploy parity`."""

from __future__ import annotations

from typing import Annotated

import typer

from vitnla.cli.bundles import DEFAULT_THREADS, Bundles, Provider, Runtimes, Threads, open_bundles, targets
from vitnla.cli.output import Json, bar, emit


def parity(
    bundles: Bundles = None,
    runtime: Runtimes = None,
    provider: Provider = "cpu",
    threads: Threads = DEFAULT_THREADS,
    data: Annotated[
        str, typer.Option(help="Accuracy is measured on the test split of this data; none checks the logits only.")
    ] = "demo",
    eval_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole test split.")] = None,
    json: Json = False,
) -> None:
    """Compare a runtime's logits and classes with those of torch."""
    from rich.console import Console

    from runtime.parity import check_parity
    from runtime.report.console import parity_table
    from vitnla.cli.evaluation import load_evaluation
    from vitnla.common.errors import VerdictError

    chosen = targets(runtime, provider)
    pairs = [(bundle, one) for bundle in open_bundles(bundles) for target in chosen for one in target.on(bundle)]
    evaluation = None if data == "none" else load_evaluation(data, count=eval_images)
    rows = []
    with bar("parity") as progress:
        for done, (bundle, target) in enumerate(pairs):
            progress(done, len(pairs), f"{bundle.name} on {target.label}")
            rows.append(check_parity(bundle, target, threads=threads, evaluation=evaluation))
    if json:
        emit({"rows": [{**row.model_dump(), "verdict": row.verdict} for row in rows]})
    else:
        Console().print(parity_table(rows))
    if failed := [f"{row.bundle} on {row.runtime}" for row in rows if row.verdict == "not met"]:
        raise VerdictError(f"parity is not met: {', '.join(failed)}", "the table shows by how much, and on which runtime")
