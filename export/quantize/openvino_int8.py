"""INT8 for OpenVINO, by NNCF on the ONNX graph itself, so that one file serves every runtime."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

import onnx

from export.embed import PREFIX
from export.trace import INPUT
from runtime.runners.base import Images


def quantize_by_nncf(source: Path, images: Images) -> onnx.ModelProto:
    """SmoothQuant, Q/DQ around every product of the transformer (attention included), and bias correction.

    Args:
        source: float graph.
        images: preprocessed calibration images [N, C, H, W].
    """
    import nncf

    dataset = nncf.Dataset(range(len(images)), lambda index: {INPUT: images[index : index + 1]})
    level = logging.getLogger("nncf").level
    nncf.set_log_level(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars; ours go to stderr, and stdout may be JSON
            quantized: onnx.ModelProto = nncf.quantize(
                onnx.load(source), dataset, model_type=nncf.ModelType.TRANSFORMER, preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(images), ignored_scope=nncf.IgnoredScope(patterns=[f"{PREFIX}.*"], validate=False),
            )  # fmt: skip
    finally:
        nncf.set_log_level(level)
    return quantized
