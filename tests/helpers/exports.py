"""Exporting a decomposition that a test made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.bundle.from_model import export_bundle
from export.bundle.plan import ExportOptions
from runtime.bundle.schema import Bundle
from vitnla.common.schema import Record
from vitnla.data.dataset import Dataset
from vitnla.decomposition import DecomposedModel
from vitnla.methods import Decomposition
from vitnla.methods.none.config import NoneConfig
from vitnla.methods.svd.config import SvdConfig
from vitnla.sources.source_model import SourceModel


def export_decomposition(
    source: SourceModel, decomposition: Decomposition, data: Dataset, destination: Path, method: str = "svd", **options: Any
) -> Bundle:
    """Export as if `method` had made the decomposition: `svd` with rank 4, or another one without settings."""
    config: Record = SvdConfig(rank=4) if method == "svd" else NoneConfig()
    made = DecomposedModel(source, decomposition, method, config, data)
    return export_bundle(made, destination, ExportOptions(**options), command="test")
