"""Selection of bundles and runtimes, shared by `bench` and `parity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from export.cli.output import say
from runtime.process.affinity import usable_cpus

if TYPE_CHECKING:
    from runtime.bench.plan import Target
    from runtime.bundle.schema import Bundle

ARTIFACTS = Path("artifacts")
Bundles = Annotated[
    list[Path] | None,
    typer.Argument(help="Bundle folders. Default: all in artifacts/, with the dense demo made where it is missing."),
]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        help="Repeatable: ort, openvino, torch, torch-compile, trt, trt-rtx; with a precision, trt:fp16, openvino:bf16. Default: ort.",
    ),
]
Provider = Annotated[str, typer.Option(help="Execution provider of ONNX Runtime: cpu, cuda or tensorrt.")]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads, the same for every runtime. Default: all cores.", show_default=False)
]
ClassMap = Annotated[
    Path | None,
    typer.Option(
        help="File that renames classes of the data as the model calls them: lines of DATA NAME, tab, MODEL NAME (or #NUMBER)."
    ),
]
DEFAULT_THREADS = len(usable_cpus())


def targets(runtimes: list[str] | None, provider: str) -> tuple[Target, ...]:
    """The runtimes named, each once. Refused before long work: an unknown name, and where not one of them can run here."""
    from runtime.bench.plan import Target

    chosen = tuple(Target.parse(name, provider) for name in dict.fromkeys(runtimes or ["ort"]))
    reasons = [target.unavailable() for target in chosen]
    if reasons[0] is not None and all(reasons):
        raise reasons[0]
    return chosen


def open_bundles(folders: list[Path] | None) -> tuple[Bundle, ...]:
    """The bundles named, or all in `artifacts/` with a dense demo among them."""
    from runtime.bundle.schema import find_bundles, open_bundle

    if folders:
        return tuple(open_bundle(folder) for folder in folders)
    found = find_bundles(ARTIFACTS)
    if not any(bundle.manifest.method == "none" for bundle in found):
        found = (_dense_demo(), *found)
    say(f"no bundle named: using {', '.join(str(bundle.folder) for bundle in found)}")
    return found


def _dense_demo() -> Bundle:
    from export.bundle.plan import ExportOptions
    from export.cli.output import status
    from export.pipeline import ExportRequest, export_model

    say(f"no dense bundle in {ARTIFACTS}/ to compare with: exporting the demo")
    request = ExportRequest("demo", "demo", "none", {}, None, ExportOptions(), "vitdeploy export --method none")
    with status() as on_step:
        return export_model(request, on_step)
