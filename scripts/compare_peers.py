"""One interleaved run of what a user could do instead of vitdeploy, on the same weights, images and threads.

python scripts/compare_peers.py --model SPEC --data SPEC [--ours BUNDLE ...] [--optimum FILE ...] [-b 1,16] [-o results/peers-NAME.jsonl]

Rows: torch eager and torch.compile; the dense model in ONNX Runtime in fp32, dynamic int8 and static int8; in OpenVINO in fp32, bf16 and
NNCF int8; and ours. `--optimum` takes the ONNX files that optimum wrote of the same weights, as scripts/optimum_export.sh makes them in a
virtual environment of its own, since optimum pins another transformers; their preprocessing is that of the model. What cannot run has a
row with its reason.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from rich.console import Console

from export.cli.evaluation import load_evaluation
from export.cli.output import complain, integers, say, status
from export.compare.peers import BASELINE, TARGETS, Asked, absent_cells, gather
from runtime.bench.plan import BenchPlan
from runtime.bench.run import run_bench
from runtime.bench.timing import PROCESSES
from runtime.machine.facts import usable_cores
from runtime.report.terminal.cells import cells_table
from runtime.results.schema import append_cells
from vitnla.common.errors import VitDeployError


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
    parser.add_argument("--processes", type=int, default=PROCESSES, help="of each cell, one after the other")
    parser.add_argument("--eval-images", type=int, help="test images that accuracy is measured on; default all")
    parser.add_argument("--no-accuracy", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("artifacts/peers"), help="where the peers' bundles are kept")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/peers.jsonl"))
    return parser.parse_args()


def compare(asked: argparse.Namespace) -> None:
    """Make the peers' bundles, measure everything in turns, print and append the cells."""
    command = shlex.join(["python", "scripts/compare_peers.py", *sys.argv[1:]])
    batches = integers(asked.batch, "batch size")
    wanted = Asked(asked.model, asked.data, asked.work, command, asked.optimum, asked.ours, asked.eval_images)
    with status() as on_step:
        peers = gather(wanted, on_step)
    plan = BenchPlan(
        peers.bundles, TARGETS, batches, asked.threads,
        seconds=asked.seconds, rounds=asked.rounds, processes=asked.processes, baseline=BASELINE.name, only=peers.only,
    )  # fmt: skip
    evaluation = None if asked.no_accuracy else load_evaluation(asked.data, count=asked.eval_images)
    with status() as on_step:
        cells = run_bench(
            plan, evaluation, command=command, progress=lambda done, total, text: on_step(f"{text} (step {done} of {total})")
        )
    cells += absent_cells(peers.absent, cells[0], plan)
    append_cells(asked.output, cells)
    Console(width=160).print(cells_table(cells))
    say(f"appended to {asked.output}")


def main() -> int:
    """The exit code."""
    try:
        compare(parse())
    except VitDeployError as error:
        complain(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
