"""Describe a bundle for the terminal and as JSON (`vitdeploy info`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from runtime.bundle.schema import Bundle, Manifest
from runtime.report.terminal.fit import Column, FittedTable
from runtime.report.text import MISSING, percent
from vitnla.common.measures import Cost, LayerRow

_LABELS = 5
"""Number of class names that are shown."""


def bundle_info_record(bundle: Bundle) -> dict[str, Any]:
    """Return the manifest as JSON, with the folder, the model's size on disk in bytes, and the engines."""
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.folder),
        **manifest.model_dump(mode="json"),
        "macs": {**manifest.macs.model_dump(), "ratio": manifest.macs.ratio},
        "parameters": {**manifest.parameters.model_dump(), "ratio": manifest.parameters.ratio},
        "model_bytes": bundle.model_bytes(),
        "engines": [record.model_dump(mode="json") for record in bundle.engine_records()],
    }


def bundle_info_tables(bundle: Bundle) -> Group:
    """Return tables of facts, of the engines if any, and of the linears if the method reports them."""
    facts = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(bundle):
        facts.add_row(name, Text(value))
    parts: list[Table | FittedTable | Text] = [facts]
    if engines := bundle.engine_records():
        columns = [
            Column("Engine", [record.file for record in engines], numeric=False),
            Column("Library", [f"{record.runtime} {record.library_version}" for record in engines], numeric=False),
            Column("GPU", [record.capability for record in engines], numeric=False),
            Column("Precision", [record.precision for record in engines], numeric=False),
            Column("Batch", [str(record.profile) for record in engines], numeric=False),
            Column("MiB", [f"{record.engine_bytes / 2**20:.1f}" for record in engines], rank=2),
            Column("Graph max rel.", [f"{record.graph_max_rel:.1e}" for record in engines], rank=3),
            Column("Built in s", [f"{record.build_seconds:.1f}" for record in engines], rank=1),
        ]
        parts += [Text(), FittedTable(columns, {})]
    if rows := bundle.manifest.layers:
        parts += [Text(), _layers(rows)]
    return Group(*parts)


def _layers(rows: tuple[LayerRow, ...]) -> FittedTable:
    return FittedTable(
        [
            Column("Linear", [f"{row.block}.{row.linear}" for row in rows], numeric=False),
            Column("Rank", ["dense" if row.rank is None else f"{row.rank} of {row.full_rank}" for row in rows]),
            Column("Out × in", [_width(row) for row in rows], rank=1),
            Column("MACs", [f"{row.macs:,}" for row in rows]),
            Column("Rel. error", [f"{row.relative_error:.4f}" for row in rows]),
            Column("Energy %", [percent(row.retained_energy) for row in rows]),
        ],
        {},
    )


def _width(row: LayerRow) -> str:
    """Return the linear's features (out × in), and the former ones where it was narrowed."""
    if row.shape is None:
        return MISSING
    now = " × ".join(map(str, row.shape))
    return f"{now} (was {' × '.join(map(str, row.dense_shape))})" if row.narrowed and row.dense_shape is not None else now


def _facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    manifest = bundle.manifest
    accuracy, parity = manifest.accuracy, manifest.parity
    yield "bundle", f"{manifest.name}, in {bundle.folder}"
    yield "made", f"{manifest.created} by {manifest.command}"
    yield "source", f"{manifest.source} (sha256 {manifest.source_sha256[:12]}…)"
    yield "method", f"{manifest.method}{_settings(manifest.method_config)}"
    if (distilled := manifest.distillation) is not None:
        trained = f"{distilled.images:,} images of {distilled.data}, epoch {distilled.best_epoch} of {distilled.epochs}"
        yield "distilled", f"by {distilled.teacher} on {trained}"
    if (online := manifest.online) is not None:
        yield "online", f"{', '.join(online.kinds)}: {online.form}, {online.parity.max_rel:.1e} relative to the exact one"
    yield "precision", manifest.precision
    yield "MACs", _cost(manifest.macs)
    yield "parameters", _cost(manifest.parameters)
    yield "size", f"{bundle.model_bytes() / 2**20:.1f} MiB on disk"
    scores = f"agreement {percent(accuracy.agreement)} %" if accuracy.agreement is not None else "no agreement"
    if accuracy.not_measured is None:
        scores = f"top-1 {percent(accuracy.top1)} % (dense {percent(accuracy.dense_top1)} %), {scores}"
    among = "" if accuracy.columns is None else f", among {len(accuracy.columns)} of {len(manifest.labels)} classes"
    yield "accuracy", f"{scores}, on {accuracy.images:,} {accuracy.split} images of {manifest.data}{among}"
    if accuracy.not_measured is not None:
        yield "not measured", f"top-1: {accuracy.not_measured}"
    batches = ", ".join(map(str, parity.batches))
    met = "met" if parity.met else "NOT MET"
    yield "parity", f"{met}: {parity.max_rel:.1e} relative to torch, limit {parity.tolerance:.0e}, at batches {batches}"
    for title, spec in (("input", manifest.input), ("output", manifest.output)):
        yield title, f"{spec.name}: {spec.dtype} [{', '.join(map(str, spec.shape))}]"
    yield "preprocessing", _preprocessing(manifest)
    shown = ", ".join(manifest.labels[:_LABELS])
    rest = len(manifest.labels) - _LABELS
    yield "labels", f"{shown} and {rest:,} more" if rest > 0 else shown
    graph = manifest.graph
    operators = sum(graph.operators.values())
    yield (
        "graph",
        f"opset {graph.opset}, {operators} operators, {graph.low_rank_pairs} low-rank pairs; simplified by {graph.simplifier}",
    )
    yield "tools", ", ".join(f"{name} {version}" for name, version in manifest.tools.items())


def _cost(cost: Cost) -> str:
    return f"{cost.model:,} of {cost.dense:,} ({cost.ratio:.2f} ×), in the encoder's linears"


def _settings(config: dict[str, Any]) -> str:
    """Return the method's settings that are not null; long ones, such as a measured latency model, by name only."""
    words = []
    for name, value in config.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            words.append(f"{name}={text}" if len(text) <= 40 else f"{name}=…")
    return f" ({', '.join(words)})" if words else ""


def _preprocessing(manifest: Manifest) -> str:
    done = ", ".join(f"{name} {_value(value)}" for name, value in manifest.preprocessing.items())
    if manifest.embedded is None:
        return done
    return f"inside the graph, within {manifest.embedded.grey_levels:.2f} grey levels: {done}"


def _value(value: Any) -> str:
    return (
        " ".join(f"{item:.4g}" if isinstance(item, float) else str(item) for item in value)
        if isinstance(value, list)
        else str(value)
    )
