"""One interleaved run of what a user could do instead of vitdeploy, on the same weights, images and threads.

python scripts/compare_peers.py --model SPEC --data SPEC [--ours BUNDLE ...] [--optimum FILE ...] [-b 1,16] [-o results/peers-NAME.jsonl]

Rows: torch eager and torch.compile; the dense model in ONNX Runtime in fp32, dynamic int8 and static int8; in OpenVINO in fp32, bf16 and
NNCF int8; and ours. `--optimum` takes the ONNX files that optimum wrote of the same weights, as scripts/optimum_export.sh makes them in a
virtual environment of its own, since optimum pins another transformers. What cannot run has its reason in the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from export.options import ExportOptions
from export.run import ExportRequest, export_model
from runtime.bench import run_bench
from runtime.bundle import MANIFEST, Bundle, open_bundle
from runtime.machine import usable_cores
from runtime.plan import BenchPlan, Target
from runtime.report.console import cells_table
from runtime.results import Cell, append_cells
from vitnla.cli.evaluation import load_evaluation
from vitnla.cli.output import command_line, say
from vitnla.common.errors import InputError, MissingDependencyError

TORCH = ("torch", "torch-compile")


@dataclass(frozen=True)
class Peer:
    """A dense bundle, and the runtimes that it is measured on."""

    name: str
    precision: str
    lowering: str
    runtimes: tuple[str, ...]


PEERS = (
    Peer("dense-fp32", "fp32", "ort", (*TORCH, "ort", "openvino")),
    Peer("dense-int8-dynamic", "int8-dynamic", "ort", ("ort",)),
    Peer("dense-int8-ort", "int8", "ort", ("ort",)),
    Peer("dense-int8-openvino", "int8", "openvino", ("openvino",)),
)
NOT_GIVEN = "no --optimum FILE was given: scripts/optimum_export.sh writes them"
TARGETS = tuple(Target.parse(name) for name in (*TORCH, "ort", "openvino", "openvino:bf16"))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", default="demo")
    parser.add_argument("--ours", type=Path, nargs="*", default=[], help="bundles of decomposed models of the same source")
    parser.add_argument(
        "--optimum", type=Path, nargs="*", default=[], help="ONNX files that optimum exported of the same weights"
    )
    parser.add_argument("-b", "--batch", default="1,16")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--seconds", type=float, default=5.0, help="measured per cell")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--eval-images", type=int, help="test images that accuracy is measured on; default all")
    parser.add_argument("--no-accuracy", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("artifacts/peers"), help="where the dense bundles are kept")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/peers.jsonl"))
    return parser.parse_args()


def main() -> None:
    """Make the dense bundles, measure everything in turns, print and append the cells."""
    asked = parse()
    bundles, only = dense_bundles(asked, lambda text: say(f"  {text}"))
    for file in asked.optimum:
        try:
            bundles.append(optimum_bundle(asked, file))
        except InputError as error:
            say(f"optimum-{file.parent.name}: no row, since {error.message}")
            continue
        only[bundles[-1].name] = ("ort",)
    if not asked.optimum:
        is_transformers = asked.model.startswith("hf:")
        say(f"optimum: no row, since {NOT_GIVEN if is_transformers else 'it exports models of transformers, not ' + asked.model}")
    for folder in asked.ours:
        bundles.append(open_bundle(folder))
        only[bundles[-1].name] = (
            (bundles[-1].manifest.runtime,) if bundles[-1].manifest.precision != "fp32" else ("ort", "openvino")
        )
    batches = tuple(int(word) for word in asked.batch.split(","))
    plan = BenchPlan(
        tuple(bundles),
        TARGETS,
        batches,
        asked.threads,
        seconds=asked.seconds,
        rounds=asked.rounds,
        baseline="dense-fp32",
        only=only,
    )
    evaluation = None if asked.no_accuracy else load_evaluation(asked.data, count=asked.eval_images)
    cells: list[Cell] = run_bench(plan, evaluation, command=command_line())
    append_cells(asked.output, cells)
    Console(width=160).print(cells_table(cells))
    say(f"appended to {asked.output}")


def dense_bundles(asked: argparse.Namespace, on_step: Callable[[str], None]) -> tuple[list[Bundle], dict[str, tuple[str, ...]]]:
    """The peers' bundles that can be made here; those that cannot say why."""
    bundles: list[Bundle] = []
    only: dict[str, tuple[str, ...]] = {}
    for peer in PEERS:
        folder = asked.work / peer.name
        options = ExportOptions(
            name=peer.name, precision=peer.precision, runtime=peer.lowering, eval_images=asked.eval_images, force=True
        )
        request = ExportRequest(asked.model, asked.data, "none", {}, folder, options, command_line())
        try:
            bundle = open_bundle(folder) if (folder / MANIFEST).is_file() else export_model(request, on_step)
        except MissingDependencyError as error:
            say(f"{peer.name}: no row, since {error.message}")
            continue
        bundles.append(bundle)
        only[peer.name] = peer.runtimes
    return bundles, only


def optimum_bundle(asked: argparse.Namespace, file: Path) -> Bundle:
    """A bundle around a file that optimum wrote, named after the folder it lies in; the graph stays as it is."""
    from export.onnx_model.request import OnnxRequest
    from export.onnx_model.run import export_onnx

    name = f"optimum-{file.parent.name}"
    request = OnnxRequest(
        f"onnx:{file}", asked.data, "none", {}, asked.work / name, command_line(), name=name,
        eval_images=asked.eval_images, force=True,
    )  # fmt: skip
    return export_onnx(request, lambda text: say(f"  {text}"))


if __name__ == "__main__":
    main()
