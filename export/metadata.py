"""The manifest's key fields inside the ONNX file itself, for programs that have nothing but that file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import onnx

from vitnla.data.preprocessing import Preprocessing
from vitnla.model.config import LINEARS, ViTConfig

if TYPE_CHECKING:
    from vitnla.sources.model import SourceModel

PREFIX = "vitdeploy."


def key_fields(source: SourceModel, config: ViTConfig, method: str, version: str) -> dict[str, str]:
    """What a reader of `model.onnx` can ask for.

    Returns:
        `vitdeploy.version`, `.method`, `.ranks`, `.source`, `.source_sha256`, `.preprocessing` and `.labels`. Ranks
        (`{"0.qkv": 64, ...}`, dense linears left out), preprocessing and labels are JSON.
    """
    ranks = {
        f"{index}.{name}": rank
        for index, block in enumerate(config.blocks)
        for name in LINEARS
        if (rank := getattr(block.ranks, name)) is not None
    }
    return fields(
        version=version, method=method, ranks=ranks, source=source.spec, source_sha256=source.sha256,
        preprocessing=source.preprocessing, labels=source.labels,
    )  # fmt: skip


def fields(
    *, version: str, method: str, ranks: Mapping[str, int], source: str, source_sha256: str,
    preprocessing: Preprocessing, labels: Sequence[str],
) -> dict[str, str]:  # fmt: skip
    """The entries that `key_fields` describes."""
    texts = {
        "version": version,
        "method": method,
        "ranks": json.dumps(dict(ranks)),
        "source": source,
        "source_sha256": source_sha256,
        "preprocessing": preprocessing.model_dump_json(),
        "labels": json.dumps(list(labels)),
    }
    return {f"{PREFIX}{name}": value for name, value in texts.items()}


def write_metadata(model: onnx.ModelProto, fields: dict[str, str]) -> None:
    """Replace the model's `metadata_props`."""
    onnx.helper.set_model_props(model, fields)


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """The model's `metadata_props` as a mapping."""
    return {entry.key: entry.value for entry in model.metadata_props}
