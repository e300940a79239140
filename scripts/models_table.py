"""Export every model that docs/models.md names by `auto`, with random weights, and keep a row of each.

python scripts/models_table.py RESULTS.jsonl [WORD ...]        only the models whose SPEC holds one of the words; what is there is not done again
python scripts/models_table.py RESULTS.jsonl --markdown       print the rows as the table of docs/models.md
"""

from __future__ import annotations

import json
import multiprocessing
import re
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

from export.bundle.plan import ExportOptions
from export.pipeline import ExportRequest, export_model
from vitnla.sources.load import load_model

DOCS = Path(__file__).parent.parent / "docs" / "models.md"
CALIBRATION, TEST = 16, 8


def named_models() -> list[str]:
    """The SPECs of the table in docs/models.md; `hf:CLASS` stands for that class of transformers with its default config."""
    rows = re.findall(r"^\| (timm|torchvision|hf) \| (`.*) \|$", DOCS.read_text(), re.MULTILINE)
    return [
        f"{library}:{name}" if library == "hf" else f"{library}:{name}@random"
        for library, names in rows
        for name in re.findall(r"`([\w.]+)`", names)
    ]


def main() -> None:
    """Export what is not in the file yet, each in a process of its own, whose peak memory is its own too."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    results, words = Path(sys.argv[1]), sys.argv[2:]
    lines = results.read_text().splitlines() if results.is_file() else []
    if words == ["--markdown"]:
        print(markdown(list(map(json.loads, lines))))
        return
    done = {row["model"] for row in map(json.loads, lines) if row["error"] is None}
    wanted = [spec for spec in named_models() if spec not in done and (not words or any(word in spec for word in words))]
    context = multiprocessing.get_context("spawn")
    for number, spec in enumerate(wanted, 1):
        print(f"{number} of {len(wanted)}: {spec}", flush=True)
        child = context.Process(target=export_row, args=(spec, results))
        child.start()
        child.join()
        if child.exitcode:
            print(f"  ended with exit code {child.exitcode}", flush=True)


def markdown(rows: list[dict[str, object]]) -> str:
    """The table of docs/models.md: the models that were exported, in the order of their names."""
    head = "| model | images | tokens | width × blocks | outputs | × MACs | ONNX against torch |\n| --- | --: | --: | --: | --: | --: | --: |"
    good = sorted((row for row in rows if row["error"] is None), key=lambda row: str(row["model"]))
    return "\n".join(
        [head]
        + [
            f"| `{str(row['model']).removesuffix('@random')}` | {row['images']} | {row['tokens']} | {row['dim']} × {row['blocks']} "
            f"| {row['outputs']:,} | {row['macs']:.2f} | {row['parity']:.1e} |"
            for row in good
        ]
    )


def export_row(spec: str, results: Path) -> None:
    """Export one model to a folder that is thrown away, and append what is known of it."""
    row: dict[str, object] = {"model": spec, "error": None}
    try:
        with tempfile.TemporaryDirectory() as folder:
            row |= _export(spec, Path(folder))
    except Exception as error:  # any failure is a row of the table, with its reason
        traceback.print_exc()
        row["error"] = f"{type(error).__name__}: {error}"
    with results.open("a") as stream:
        stream.write(json.dumps(row) + "\n")


def _export(spec: str, folder: Path) -> dict[str, object]:
    library, _, name = spec.partition(":")
    model = f"hf:{_new_transformer(name, folder / 'source')}" if library == "hf" else spec
    source = load_model(model)
    config, size = source.model.config, source.preprocessing.image_size
    generator = np.random.default_rng(0)
    images = folder / "images.npz"
    labels = np.append(
        np.zeros(CALIBRATION * 10 + TEST - 1, np.int64), config.classes - 1
    )  # the largest tells how many there are
    np.savez(
        images, images=generator.integers(0, 256, (len(labels), size, size, 3), np.uint8), labels=labels,
        splits=np.array(["train"] * CALIBRATION * 10 + ["test"] * TEST),
    )  # fmt: skip
    started = time.monotonic()
    request = ExportRequest(
        model, f"npz:{images}", "auto", {"target_macs": 0.6, "probe_images": CALIBRATION}, folder / "bundle",
        ExportOptions(), "scripts/models_table.py", CALIBRATION,
    )  # fmt: skip
    manifest = export_model(request, lambda text: None).manifest
    return {
        "images": size, "tokens": config.tokens, "dim": config.dim, "blocks": len(config.blocks), "outputs": config.classes,
        "macs": manifest.macs.ratio, "parity": manifest.parity.max_rel, "seconds": round(time.monotonic() - started, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }  # fmt: skip


def _new_transformer(name: str, folder: Path) -> Path:
    """A folder as transformers saves one, of a class with its default config and random weights."""
    import transformers

    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class())
    model.save_pretrained(folder)
    size = model.config.image_size
    processor = {
        "size": {"height": size, "width": size},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


if __name__ == "__main__":
    main()
