"""`vitdeploy parity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from export.cli.bundles import DEFAULT_THREADS, Bundles, ClassMap, Provider, Runtimes, Threads, open_bundles, targets
from export.cli.output import Json, bar, emit, status

if TYPE_CHECKING:
    from runtime.bench.plan import Target
    from runtime.bundle.schema import Bundle
    from runtime.check.layer_parity import LayerParity


def parity(
    bundles: Bundles = None,
    runtime: Runtimes = None,
    provider: Provider = "cpu",
    threads: Threads = DEFAULT_THREADS,
    data: Annotated[
        str, typer.Option(help="Accuracy is measured on the test split of this data; none checks the logits only.")
    ] = "demo",
    class_map: ClassMap = None,
    eval_images: Annotated[int | None, typer.Option(min=1, help="Default: the whole test split.")] = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="Also find the first layer whose error is over the tolerance: a table per bundle and runtime."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Compare a runtime's logits and classes with those of torch."""
    from rich.console import Console

    from export.cli.evaluation import load_evaluation, measurable
    from runtime.check.parity import check_parity
    from runtime.report.terminal.cells import losses_table
    from runtime.report.terminal.parity import layer_parity_table, parity_table
    from vitnla.common.errors import VerdictError

    chosen = targets(runtime, provider)
    pairs = [(bundle, one) for bundle in open_bundles(bundles) for target in chosen for one in target.on(bundle)]
    evaluation = None if data == "none" else load_evaluation(data, count=eval_images, class_map=class_map)
    rows = []
    with bar("parity") as progress:
        for done, (bundle, target) in enumerate(pairs):
            progress(done, len(pairs), f"{bundle.name} on {target.label}")
            rows.append(check_parity(bundle, target, threads=threads, evaluation=measurable(bundle, evaluation)))
    layer_parities = _check_layers(pairs, threads) if layers else []
    if json:
        record = {"rows": [{**row.model_dump(), "verdict": row.verdict} for row in rows]}
        record["losses"] = [
            {"bundle": bundle.name, **stage.model_dump()} for bundle in _each_once(pairs) for stage in bundle.manifest.losses
        ]
        if layers:
            record["layers"] = [{**one.model_dump(), "steepest": one.steepest} for one in layer_parities]
        emit(record)
    else:
        console = Console()
        console.print(parity_table(rows))
        if any(bundle.manifest.losses for bundle in _each_once(pairs)):
            console.print(losses_table({bundle.name: bundle.manifest.losses for bundle in _each_once(pairs)}))
        for one in layer_parities:
            console.print(layer_parity_table(one))
    if failed := [f"{row.bundle} on {row.runtime}" for row in rows if row.verdict == "not met"]:
        raise VerdictError(f"parity is not met: {', '.join(failed)}", "the table shows by how much, and on which runtime")


def _each_once(pairs: list[tuple[Bundle, Target]]) -> list[Bundle]:
    return list({bundle.folder: bundle for bundle, _ in pairs}.values())


def _check_layers(pairs: list[tuple[Bundle, Target]], threads: int) -> list[LayerParity]:
    from export.layer_parity import check_layer_parity

    found = []
    with status() as on_step:
        for bundle, target in pairs:

            def on_probe(part: str, where: str = f"{bundle.name} on {target.label}") -> None:
                on_step(f"{where}: {part}")

            found.append(check_layer_parity(bundle, target, threads=threads, on_probe=on_probe))
    return found
