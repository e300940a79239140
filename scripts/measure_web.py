"""Measures the web example in headless Chromium: what is downloaded, and how soon and how fast it answers.

    python scripts/measure_web.py BUNDLE ... -o results/web-demo.jsonl      # 5 rounds, 30 images each

Needs the dev extra, Chromium, Node and npm. Each round writes the example of every bundle anew, serves it with its own `serve.mjs` and
opens it in a fresh browser, in an order that alternates. `npm install` is run once and not timed. Times are those of the page itself.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runtime.apps.write import SAMPLE
from runtime.bundle.schema import MODEL, Bundle, open_bundle
from runtime.machine.facts import machine_facts
from tests.helpers.browser import chromium, requests
from tests.helpers.npm import npm_install
from tests.helpers.web_app import dropped, opened, served
from vitnla.common.files import write_atomically

_MEASURES = "return performance.getEntriesByType('measure').map(({name, duration}) => [name, duration])"


def main() -> None:
    """Measure, write one JSON object per bundle, and print the table of docs/embed.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=30, help="how often the sample is dropped, after the first answer")
    arguments = parser.parse_args()
    bundles = [open_bundle(path) for path in arguments.bundles]
    with tempfile.TemporaryDirectory() as folder:
        npm_install("web", ("package.json", "copy-runtime.mjs"), Path(folder))
        rounds: list[dict[str, dict[str, Any]]] = []
        for number in range(arguments.rounds):
            order = bundles if number % 2 == 0 else bundles[::-1]
            rounds.append({bundle.name: measure(bundle, Path(folder), arguments.images) for bundle in order})
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    rows = [row(bundle, [one[bundle.name] for one in rounds]) for bundle in bundles]
    write_atomically(arguments.output, "".join(f"{json.dumps(found | {'machine': machine_facts()})}\n" for found in rows))
    print(table(rows))


def measure(bundle: Bundle, folder: Path, images: int) -> dict[str, Any]:
    """One round of one bundle: from `vitdeploy embed` to the sample's right answer, then more of the same."""
    app = folder / "app"
    shutil.rmtree(app, ignore_errors=True)
    start = time.perf_counter()
    command = "from export.cli.main import main; main()"
    embed = [sys.executable, "-c", command, "embed", bundle.folder, "--target", "web", "-o", app, "--json"]
    subprocess.run(embed, check=True, capture_output=True)
    embedded = time.perf_counter() - start
    (app / "ort").symlink_to(folder / "ort")
    with chromium("--disable-gpu") as browser, served(app) as url:
        start = time.perf_counter()
        page = opened(browser, url)
        answered = time.perf_counter() - start
        if not page.check.startswith("ok: "):
            raise SystemExit(f"error: {bundle.name}: expected the right answer, got {page.check} {page.error}")
        asked = [address.removeprefix(url) for address in requests(browser)]
        for number in range(images):
            again = Path(shutil.copyfile(app / SAMPLE, folder / f"{number}.png"))
            dropped(browser, again)
        measures: list[tuple[str, float]] = browser.execute_script(_MEASURES)
        version = browser.capabilities["browserVersion"]
    predictions = [duration for name, duration in measures if name == "prediction"]
    return {
        "embed_to_answer_s": embedded + answered, "ready_s": dict(measures)["ready"] / 1000, "first_ms": predictions[0],
        "later_ms": statistics.median(predictions[1:]), "running": page.running, "chromium": version,
        "model": sizes([path for path in app.iterdir() if path.name.startswith(MODEL)]),
        "runtime": sizes([app / name for name in sorted(set(asked)) if name.startswith("ort/")]),
    }  # fmt: skip


def sizes(files: list[Path]) -> dict[str, int]:
    """Bytes of files as they are, and as gzip -9 would send them."""
    contents = [file.read_bytes() for file in files]
    return {"bytes": sum(map(len, contents)), "gzip": sum(len(gzip.compress(content)) for content in contents)}


def row(bundle: Bundle, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, and the rounds themselves."""
    times = ("embed_to_answer_s", "ready_s", "first_ms", "later_ms")
    medians = {name: round(statistics.median(one[name] for one in rounds), 3) for name in times}
    kept = {name: rounds[0][name] for name in ("model", "runtime", "running", "chromium")}
    raw = [{name: round(one[name], 3) for name in times} for one in rounds]
    return {"bundle": bundle.name, "precision": bundle.manifest.precision, **kept, **medians, "rounds": raw}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| bundle | model, MB | with gzip | ready, s | first answer, ms | later ones, ms | embed to right answer, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in rows:
        model = [f"{found['model'][kind] / 1e6:.1f}" for kind in ("bytes", "gzip")]
        times = [
            f"{found['ready_s']:.2f}",
            f"{found['first_ms']:.0f}",
            f"{found['later_ms']:.1f}",
            f"{found['embed_to_answer_s']:.1f}",
        ]
        lines.append(f"| {' | '.join([found['bundle'], *model, *times])} |")
    runtime = [f"{rows[0]['runtime'][kind] / 1e6:.1f} MB" for kind in ("bytes", "gzip")]
    return "\n".join([*lines, "", f"onnxruntime-web, once: {runtime[0]}, {runtime[1]} with gzip; {rows[0]['running']}"])


if __name__ == "__main__":
    main()
