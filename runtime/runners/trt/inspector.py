"""Layers of a compiled engine, by TensorRT's engine inspector. It inspects a loaded engine, so it needs a GPU."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from runtime.bundle.engines import LayerReport

_NAMES, _ATTENTION = ("Name", "LayerType", "TacticName"), "mha"
"""JSON keys, and the substring of the names of multi-head attention kernels, such as `_gemm_mha_v2`."""


def layer_report(library: Any, engine: Any) -> LayerReport | None:
    """Inspect a loaded engine that was compiled with detailed verbosity; `None` where the inspector reports nothing."""
    text = engine.create_engine_inspector().get_engine_information(library.LayerInformationFormat.JSON)
    return read_layers(text)


def read_layers(text: str) -> LayerReport | None:
    """Count layers, fused attentions and formats in the inspector's JSON; `None` for text that lists no layers.

    An engine of low verbosity lists names only, without formats.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError):
        return None
    detailed: list[dict[str, Any]] = [layer if isinstance(layer, dict) else {"Name": str(layer)} for layer in layers]
    formats = Counter(
        str(output.get("Format/Datatype", "unknown")) for layer in detailed for output in layer.get("Outputs", ())[:1]
    )
    attentions = sum(any(_ATTENTION in str(layer.get(key, "")).lower() for key in _NAMES) for layer in detailed)
    return LayerReport(layers=len(detailed), fused_attentions=attentions, formats=dict(sorted(formats.items())))
