"""Conversion of a bundle's fp32 graph to another precision, by a cast or by the quantiser of its runtime."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx

from export.engine.graph import survives
from export.graph.files import save_model
from export.precision.calibration import Calibration
from export.precision.request import Lowering
from export.precision.runtimes.base import OnStep
from export.precision.runtimes.registry import quantizer
from runtime.bundle.schema import REFERENCE, Quantization
from vitnla.model.config import ViTConfig


def lower(path: Path, plan: Lowering, config: ViTConfig, calibration: Calibration, on_step: OnStep) -> Quantization | None:
    """Convert the graph at `path` to the plan's precision, in place.

    Args:
        path: the fp32 graph, the bundle's reference beside it; replaced.
        plan: what to lower to.
        config: of the graph: its encoder's linears are what is quantised.
        calibration: its images; none where the plan does not calibrate.
        on_step: called with a line of text before each step.

    Returns:
        The record of the quantisation; `None` for floating point.

    Raises:
        VerdictError: the model does not survive fp16; names the first value that does not fit.
    """
    on_step(f"converting to {plan.precision} for {plan.runtime}")
    if not plan.target.quantized:
        _in_fp16(path)
        return None
    return quantizer(plan.runtime).quantize(path, plan.target, plan.activations, config, calibration, on_step)


def _in_fp16(path: Path) -> None:
    with np.load(path.parent / REFERENCE, allow_pickle=False) as reference, tempfile.TemporaryDirectory() as scratch:
        images, logits = reference["images"], reference["logits"]
        hint = "leave it fp32; bf16 has the range of fp32: --precision bf16 --runtime openvino, or --engine-precision bf16"
        save_model(survives(onnx.load(path), "fp16", images, logits, Path(scratch), hint)[0], path)
