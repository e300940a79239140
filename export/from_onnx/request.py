"""Request for an export of `onnx:FILE`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.from_onnx.describe import Given


@dataclass(frozen=True)
class OnnxRequest:
    """A request for an export: `model` is `onnx:FILE`; the rest as in `export.pipeline.ExportRequest` and `export.bundle.plan.ExportOptions`."""

    model: str
    data: str
    method: str
    settings: Mapping[str, Any]
    output: Path | None
    command: str
    given: Given = field(default_factory=Given)
    name: str | None = None
    eval_split: str = "test"
    eval_images: int | None = None
    calibration_images: int | None = None
    allow_parity_failure: bool = False
    force: bool = False
    class_map: Path | None = None
    """Renames classes of the data, see `vitnla.data.class_mapping.read_class_map`."""
