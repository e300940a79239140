"""The manifest's key fields in the ONNX file's metadata, for programs that have only that file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from vitnla.common.files import write_atomically
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.config import LINEARS, ViTConfig

if TYPE_CHECKING:
    from vitnla.sources.source_model import SourceModel

PREFIX = "vitdeploy."


def key_fields(source: SourceModel, config: ViTConfig, method: str, version: str, *, embedded: bool = False) -> dict[str, str]:
    """Return the metadata entries of `model.onnx` for a torch model.

    Returns:
        `vitdeploy.version`, `.method`, `.ranks`, `.widths`, `.source`, `.source_sha256`, `.preprocessing`,
        `.embedded` and `.labels`.
        Ranks (`{"0.qkv": 64, ...}`, dense linears left out), widths (`{"0.qkv": [out, in], ...}`, of every linear),
        preprocessing and labels are JSON. `.embedded` is `true` where the graph does the preprocessing itself.
    """
    ranks = {
        f"{index}.{name}": rank
        for index, block in enumerate(config.blocks)
        for name in LINEARS
        if (rank := getattr(block.ranks, name)) is not None
    }
    widths = {
        f"{index}.{name}": shape
        for index, block in enumerate(config.blocks)
        for name, shape in block.linear_shapes(config.dim).items()
    }
    return fields(
        version=version, method=method, ranks=ranks, widths=widths, source=source.spec, source_sha256=source.sha256,
        preprocessing=source.preprocessing, embedded=embedded, labels=source.labels,
    )  # fmt: skip


def fields(
    *, version: str, method: str, ranks: Mapping[str, int], widths: Mapping[str, tuple[int, int]], source: str,
    source_sha256: str, preprocessing: Preprocessing, labels: Sequence[str], embedded: bool = False,
) -> dict[str, str]:  # fmt: skip
    """Return the metadata entries as `key_fields`, from the values themselves."""
    texts = {
        "version": version,
        "method": method,
        "ranks": json.dumps(dict(ranks)),
        "widths": json.dumps(dict(widths)),
        "source": source,
        "source_sha256": source_sha256,
        "preprocessing": preprocessing.model_dump_json(),
        "embedded": json.dumps(embedded),
        "labels": json.dumps(list(labels)),
    }
    return {f"{PREFIX}{name}": value for name, value in texts.items()}


def write_metadata(model: onnx.ModelProto, fields: dict[str, str]) -> None:
    """Replace the model's `metadata_props`."""
    onnx.helper.set_model_props(model, fields)


def write_metadata_into(path: Path, fields: dict[str, str]) -> None:
    """Replace the `metadata_props` of a file, atomically; external weights are not touched."""
    model = onnx.load(path, load_external_data=False)
    write_metadata(model, fields)
    write_atomically(path, model.SerializeToString())


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """Return the model's `metadata_props` as a mapping."""
    return {entry.key: entry.value for entry in model.metadata_props}
