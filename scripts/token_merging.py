"""Does token merging (scripts/merged_vit.py) move the front of accuracy and speed? Validation images only, one interleaved run.

python scripts/token_merging.py MODEL [MODEL ...] --data SPEC -o results/dinov2-token-merging.jsonl
python scripts/token_merging.py --markdown results/dinov2-token-merging.jsonl        print the last run of a file as tables

A plan is how many tokens each block merges away: `3`, or `6@0-5` in blocks 0 to 5, or `10@2-8/3` in blocks 2, 5 and 8; with `:keys`
alike by their keys, as in the paper, else by what the block's attention is given.
MODEL may be a dense model and the bundle of its decomposition: every row is then also compared with the first model's dense fp32.
Bundles (with their accuracy) are kept in --work and rounds beside the results, so the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from merged_vit import MergingTransformer
from merging_plan import Metric, file_name, read_plan, tokens_share
from merging_rows import UNMERGED, Key, Rounds, Row, markdown, with_speeds

from export.options import ExportOptions
from export.pipeline import export_bundle
from export.steps import evaluation_split
from runtime.bench import Bench
from runtime.bundle import MANIFEST, Bundle, open_bundle
from runtime.journal import Journal, open_journal
from runtime.machine import machine_facts, usable_cores
from runtime.plan import BenchPlan, Target
from runtime.stats import wilson
from runtime.timing import PROCESSES
from vitnla.cli.output import bar, say, status
from vitnla.common.errors import VitDeployError
from vitnla.common.jsonl import append_records, read_records
from vitnla.data.dispatch import load_data
from vitnla.methods import METHODS, Decomposition
from vitnla.settings.none import NONE
from vitnla.sources.dispatch import load_model
from vitnla.sources.model import SourceModel

_SPLIT = "validation"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--data", default="demo")
    parser.add_argument(
        "--plans",
        default="1,2,3,4,5,3:keys,6@0-5,6@6-11,10@2-8/3",
        help="in fp32; the one without merging is always among them",
    )
    parser.add_argument("--int8", default="", metavar="PLANS", help="also in int8 by NNCF for OpenVINO, such as 0,3")
    parser.add_argument("--images", type=int, default=2000, help="validation images")
    parser.add_argument("--runtime", default="ort,openvino")
    parser.add_argument("-b", "--batch", default="1,16")
    parser.add_argument("--seconds", type=float, default=2.0, help="measured per cell")
    parser.add_argument("--rounds", type=int, default=10, help="0 measures accuracy only")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="of each cell, one after the other")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--work", type=Path, default=Path("artifacts/token-merging"), help="where the bundles are kept")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/token-merging.jsonl"))
    parser.add_argument("--markdown", type=Path, metavar="RESULTS", help="print the last run of this file and do nothing else")
    asked = parser.parse_args()
    if not asked.models and asked.markdown is None:
        parser.error("expected at least one MODEL, got none")
    return asked


def main() -> None:
    """Make the bundles, time them in turns, append the rows, print them."""
    asked = parse()
    if asked.markdown is not None:
        rows = read_records(asked.markdown, Row, "scripts/token_merging.py")
        print(markdown([row for row in rows if row.run == rows[-1].run]))
        return
    run, created = uuid.uuid4().hex[:12], datetime.now(UTC).isoformat(timespec="seconds")
    command = shlex.join(["scripts/token_merging.py", *sys.argv[1:]])
    origin = {"run": run, "created": created, "command": command, "split": _SPLIT, "machine": machine_facts()}
    with status() as on_step:
        made = [(bundle, row) for spec in asked.models for bundle, row in prepare(spec, asked, origin, on_step)]
    rates: dict[Key, Rounds] = {}
    journals = []
    for batch in words(asked.batch) if asked.rounds else ():
        measured, journal = time_bundles([bundle for bundle, _ in made], int(batch), asked)
        rates |= measured
        journals.append(journal)
    rows = with_speeds([row for _, row in made], rates)
    append_records(asked.output, rows, "choose another -o", say)
    for journal in journals:
        journal.remove()
    print(markdown(rows))
    say(f"appended to {asked.output}")


def words(text: str) -> list[str]:
    """The parts of `1,16`."""
    return [word for word in text.split(",") if word]


def prepare(
    spec: str, asked: argparse.Namespace, origin: dict[str, Any], on_step: Callable[[str], None]
) -> Iterator[tuple[Bundle, Row]]:
    """A bundle and its row, without speeds yet, for every plan and precision of one model."""
    source, data = load_model(spec), load_data(asked.data)
    split = evaluation_split(data, source.model.config.classes, _SPLIT, asked.images)
    wanted = [(plan, "fp32") for plan in dict.fromkeys([UNMERGED, *words(asked.plans)])]
    wanted += [(plan, "int8") for plan in dict.fromkeys([UNMERGED, *words(asked.int8)]) if asked.int8]
    fingerprint = split.fingerprint()
    for plan, precision in wanted:
        counts, metric = read_plan(plan, source.model.config)
        folder = asked.work / f"{Path(spec.partition(':')[2] or spec).name}-r{file_name(plan)}-{precision}"
        bundle = open_bundle(folder) if (folder / MANIFEST).is_file() else None
        known = bundle and (bundle.manifest.source_sha256, bundle.manifest.accuracy.fingerprint)
        if bundle is None or known != (source.sha256, fingerprint):
            on_step(f"{folder.name}: exporting")
            options = ExportOptions(
                precision=precision, runtime="openvino" if precision == "int8" else "ort", eval_split=_SPLIT,
                eval_images=asked.images, allow_parity_failure=True, force=True,
            )  # fmt: skip
            bundle = export_bundle(
                source, merged(source, counts, metric), method=NONE if not any(counts) else "token-merging", method_config={"plan": plan},
                data=data, destination=folder, options=options, command=origin["command"],
                on_step=lambda text, name=folder.name: on_step(f"{name}: {text}"),
            )  # fmt: skip
        accuracy = bundle.manifest.accuracy
        top1 = wilson(round(accuracy.top1 * accuracy.images), accuracy.images)
        yield bundle, Row(
            **origin, bundle=bundle.name, model=spec, plan=plan, merged_per_block=counts,
            tokens_share=tokens_share(counts, source.model.config.tokens), precision=precision, images=accuracy.images,
            top1=top1.value, top1_low=top1.low, top1_high=top1.high, agreement=accuracy.agreement,
            parity=bundle.manifest.parity.max_rel,
        )  # fmt: skip


def merged(source: SourceModel, counts: Sequence[int], metric: Metric) -> Decomposition:
    """The source with merging, or as it is. The costs in the bundle's manifest do not know of merging: they are per token."""
    plain = METHODS[NONE].apply(source.model, None, METHODS[NONE].config())
    return Decomposition(MergingTransformer(source.model, counts, metric), plain.layers) if any(counts) else plain


def time_bundles(bundles: Sequence[Bundle], batch: int, asked: argparse.Namespace) -> tuple[dict[Key, Rounds], Journal]:
    """The interleaved rounds of every bundle on every runtime, int8 on OpenVINO only."""
    targets = tuple(Target.parse(word) for word in words(asked.runtime))
    plan = BenchPlan(
        tuple(bundles), targets, (batch,), asked.threads, seconds=asked.seconds, min_count=asked.rounds, rounds=asked.rounds,
        processes=asked.processes, only={bundle.name: ("openvino",) for bundle in bundles if bundle.manifest.precision == "int8"},
    )  # fmt: skip
    plan.check()
    journal = open_journal(asked.output, plan, None, say)
    with bar(f"batch {batch}") as progress:
        bench = Bench(plan, plan.cases(), progress, journal)
        bench.measure()
    for cell in bench.cells:
        if cell.error is not None:
            say(f"{cell.case.key}: {cell.error.message}")
    return {
        (cell.case.bundle.name, cell.case.target.label, batch): Rounds(cell.rates, tuple(part.process for part in cell.slices))
        for cell in bench.cells
        if cell.error is None
    }, journal


if __name__ == "__main__":
    try:
        main()
    except VitDeployError as error:
        say(f"error: {error.message}\n  {error.hint}")
        sys.exit(error.exit_code)
