"""Measures what Ray costs: the demo's test images through local processes and through a two-node Ray cluster of this machine, in turns.

    python scripts/measure_cluster.py BUNDLE -o results/cluster.json              # 100,000 images, 2 workers, 3 rounds
    python scripts/measure_cluster.py BUNDLE -o /tmp/check.json --repeat 1 --rounds 1

Each round runs both engines, in an order that alternates. `ratio` is Ray's rate / the local rate, of `images_per_s`, which leaves the
start of the workers out, and of `whole`, which counts it. Memory is measured at two numbers of images, a tenth and all.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from export.batch.evaluate import EvaluationRequest, Summary, evaluate
from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle, open_bundle
from runtime.machine.facts import machine_facts
from vitnla.common.files import write_atomically

_STORE = 100 << 20


def main() -> None:
    """Measure, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--repeat", type=int, default=10, help="how often the 10,000 test images are run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="local processes; Ray gets as many nodes of one CPU")
    arguments = parser.parse_args()
    from ray.cluster_utils import Cluster

    bundle = open_bundle(arguments.bundle)
    node = {"num_cpus": 1, "object_store_memory": _STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(arguments.workers - 1):
            cluster.add_node(num_cpus=1, object_store_memory=_STORE)
        cluster.wait_for_nodes()
        small = max(1, arguments.repeat // 10)
        memory = {str(small * 10_000): run(bundle, "local", None, arguments.workers, small).peak_rss_mb}
        rounds = [measure_round(number, bundle, str(cluster.address), arguments) for number in range(arguments.rounds)]
    finally:
        cluster.shutdown()
    memory[str(arguments.repeat * 10_000)] = max(one["local"]["peak_rss_mb"] for one in rounds)
    ratios = {kind: [rate(one["ray"], kind) / rate(one["local"], kind) for one in rounds] for kind in ("images_per_s", "whole")}
    found = {
        "bundle": bundle.name, "images": arguments.repeat * 10_000, "workers": arguments.workers,
        "ratio": {kind: statistics.median(values) for kind, values in ratios.items()}, "ratios": ratios,
        "peak_rss_mb_local": memory, "rounds": rounds, "machine": machine_facts(),
    }  # fmt: skip
    write_atomically(arguments.output, json.dumps(found, indent=2) + "\n")
    print(json.dumps({key: found[key] for key in ("images", "ratio", "peak_rss_mb_local")}, indent=2))


def measure_round(number: int, bundle: Bundle, address: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both engines once; the first of a round is the second of the next."""
    order = ("local", "ray") if number % 2 == 0 else ("ray", "local")
    return {
        engine: run(bundle, engine, address if engine == "ray" else None, arguments.workers, arguments.repeat).model_dump()
        for engine in order
    }


def run(bundle: Bundle, engine: str, address: str | None, workers: int, repeat: int) -> Summary:
    """One evaluation into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        request = EvaluationRequest(
            bundle, Target("ort"), "demo", "test", Path(folder) / "out", "ray" if engine == "ray" else "local", address,
            workers, 1, 32, 2000, None, repeat, False,
        )  # fmt: skip
        return evaluate(request, lambda done, total, item: None)


def rate(summary: dict[str, Any], kind: str) -> float:
    """Images/s without the start of the workers, or `whole`."""
    return float(summary["images_per_s"] if kind == "images_per_s" else summary["images"] / summary["seconds"])


if __name__ == "__main__":
    main()
