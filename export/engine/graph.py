"""The graph that an engine is compiled from, and its error against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from export.graph.files import save_model
from export.graph.parity import OnnxModel
from export.precision.cast import FORMATS, LowPrecision, to_precision
from export.precision.float16 import Format
from export.precision.rounding import first_overflow, rounded
from runtime.bundle.engines import EnginePrecision
from runtime.bundle.schema import MODEL, REFERENCE
from runtime.check.logits import relative_error
from runtime.runners.base import Images, Logits
from vitnla.common.errors import VerdictError

TOLERANCE: dict[LowPrecision, float] = {"fp16": 5e-2, "bf16": 2e-1}
"""Largest relative error of the logits: an overflow is far above (or NaN), ordinary rounding well below."""


def engine_graph(folder: Path, precision: EnginePrecision, scratch: Path) -> tuple[Path, float]:
    """Return the ONNX file for an engine of a bundle folder, and its error.

    Args:
        folder: with `model.onnx` and the reference.
        precision: of the engine; for `fp16` and `bf16` the graph is converted, else it is `model.onnx` itself.
        scratch: an empty folder for temporary files.

    Returns:
        The file, and max |difference| of its logits from the fp32 torch logits / max |logit|: the part of the engine's error
        that can be measured without its GPU.

    Raises:
        VerdictError: the model does not survive the precision; names the first value that does not, if one does not fit.
    """
    with np.load(folder / REFERENCE, allow_pickle=False) as reference:
        images, logits = reference["images"], reference["logits"]
    if precision != "fp16" and precision != "bf16":
        return folder / MODEL, relative_error(OnnxModel(folder / MODEL)(images), logits)
    hint = f"use --engine-precision {'fp32 or bf16' if precision == 'fp16' else 'fp32'}"
    lowered, error = survives(onnx.load(folder / MODEL), precision, images, logits, scratch, hint)
    save_model(lowered, scratch / MODEL)
    return scratch / MODEL, error


def survives(
    source: onnx.ModelProto, precision: LowPrecision, images: Images, logits: Logits, scratch: Path, hint: str
) -> tuple[onnx.ModelProto, float]:
    """Return a graph at a 16-bit precision, and the error of its logits against the reference.

    Args:
        source: the fp32 graph.
        precision: `fp16` or `bf16`.
        images: of the reference, and `logits` torch's in fp32.
        scratch: a folder for temporary files.
        hint: of the error, if the model does not survive.

    Raises:
        VerdictError: the model does not survive; names the first value beyond the format's range, if any.
    """
    target, lowered = FORMATS[precision], to_precision(source, precision)
    save_model(rounded(lowered, target), scratch / "rounded.onnx")
    error = relative_error(OnnxModel(scratch / "rounded.onnx")(images), logits)
    if not error <= TOLERANCE[precision]:
        simulated = onnx.load(scratch / "rounded.onnx")
        cause = first_overflow(simulated, target, source, images, scratch / "largest.onnx") or _large_weight(source, target)
        raise VerdictError(
            f"in {precision} the logits differ from torch's by {error:.1e} of the largest, expected at most "
            f"{TOLERANCE[precision]:.0e}" + (f"; {cause}, and {precision} ends at {target.largest:.3g}" if cause else ""),
            hint,
        )
    return lowered, error


def _large_weight(model: onnx.ModelProto, target: Format) -> str | None:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
            if not largest <= target.largest:
                return f"weight {tensor.name} reaches {largest:.3g}"
    return None
