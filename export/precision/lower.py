"""From the fp32 graph of a bundle to the precision asked for, by the tool of the runtime that it is for."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx

from export.engine.graph import survives
from export.graph.files import fits_one_file, save_model
from export.precision.calibration import Calibration, input_magnitudes
from export.precision.cast import to_fp16
from export.precision.linears import count_int8_linears, encoder_linears, linear_macs, name_nodes
from export.precision.request import Lowering
from export.precision.runtimes.openvino_nncf import quantize_by_nncf
from export.precision.runtimes.ort import merge_biases, quantize_linears, quantize_linears_dynamically
from export.precision.runtimes.patch_embedding import patches_as_product
from export.precision.runtimes.tensorrt_qdq import insert_qdq
from export.precision.sensitivity import measure_sensitivity, restore, sensitive_linears
from runtime.bundle.schema import REFERENCE, Quantization
from runtime.check.logits import mean_divergence
from runtime.runners.base import Logits
from vitnla.model.config import ViTConfig

NEGLIGIBLE = 0.02
"""Mean KL divergence, in nats, up to which INT8 is not looked into further: at 0.008, DINOv2 ViT-S/14 lost no point."""
_RELIEF = 0.8
"""Linears are kept in float only if together they bring the divergence below this share of what it was."""
_SENSITIVITY_IMAGES = 64
OnStep = Callable[[str], None]


def lower(path: Path, plan: Lowering, config: ViTConfig, calibration: Calibration, on_step: OnStep) -> Quantization | None:
    """Write the graph at `path` anew at the plan's precision.

    Args:
        path: the fp32 graph, the bundle's reference beside it; replaced.
        plan: what to lower to.
        config: of the graph: its encoder's linears are what is quantised.
        calibration: its images; none where the plan does not calibrate.
        on_step: told what is being done.

    Returns:
        What the quantisation did; `None` for floating point.

    Raises:
        VerdictError: the model does not survive fp16; names the first value that does not fit.
    """
    on_step(f"converting to {plan.precision} for {plan.runtime}")
    if plan.precision == "fp16":
        _in_fp16(path)
        return None
    if plan.runtime == "openvino":
        return _by_nncf(path, plan, config, calibration)
    if plan.runtime == "ort":
        return _by_onnxruntime(path, plan, config, calibration, on_step)
    return _for_tensorrt(path, plan, config, calibration)


def _in_fp16(path: Path) -> None:
    with np.load(path.parent / REFERENCE, allow_pickle=False) as reference, tempfile.TemporaryDirectory() as scratch:
        images, logits = reference["images"], reference["logits"]
        hint = "leave it fp32; bf16 has the range of fp32: --precision bf16 --runtime openvino, or --engine-precision bf16"
        save_model(survives(onnx.load(path), "fp16", images, logits, Path(scratch), hint)[0], path)


def _by_nncf(path: Path, plan: Lowering, config: ViTConfig, calibration: Calibration) -> Quantization:
    before = calibration.logits(path)
    quantized = quantize_by_nncf(path, config, calibration.images, symmetric=plan.symmetric)
    save_model(quantized, path)
    return Quantization(
        runtime="openvino", tool=f"nncf {version('nncf')}", images=len(calibration.images), quantized=count_int8_linears(quantized),
        scheme=f"SmoothQuant; int8 weights per channel, {plan.activations} inputs; products of the attention "
        "quantised too; head in float; bias correction",
        divergence=mean_divergence(before, calibration.logits(path)),
    )  # fmt: skip


def _for_tensorrt(path: Path, plan: Lowering, config: ViTConfig, calibration: Calibration) -> Quantization:
    original = onnx.load(path)
    name_nodes(original)
    linears = encoder_linears(original, config)
    before = calibration.logits(path)
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / path.name
        save_model(original, named)
        magnitudes = input_magnitudes(named, linears, calibration.images)
    lowered = to_fp16(original)
    insert_qdq(lowered, magnitudes, "fp8" if plan.precision == "fp8" else "int8")
    save_model(lowered, path)
    return Quantization(
        runtime=plan.runtime, tool="vitdeploy", images=len(calibration.images), quantized=len(linears),
        scheme=f"{plan.precision} symmetric: inputs per tensor by their largest value, weights per channel; the rest fp16, norms fp32",
        divergence=mean_divergence(before, calibration.logits(path)),
    )  # fmt: skip


def _by_onnxruntime(path: Path, plan: Lowering, config: ViTConfig, calibration: Calibration, on_step: OnStep) -> Quantization:
    static = plan.precision == "int8"
    original = onnx.load(path)
    if static:
        original = merge_biases(patches_as_product(original))
    name_nodes(original)
    linears = encoder_linears(original, config)
    names = [node.name for node in linears]
    with tempfile.TemporaryDirectory() as folder:
        source, destination = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        save_model(original, source)
        if not static:
            quantize_linears_dynamically(source, destination, names)
            save_model(onnx.load(destination), path)
            return Quantization(
                runtime="ort", tool=f"onnxruntime {version('onnxruntime')}", images=0, quantized=len(names),
                scheme="int8 weights per channel, inputs uint8 by the range of each run",
            )  # fmt: skip
        quantize_linears(source, destination, names, calibration.images)
        reference = calibration.logits(source)
        quantized = onnx.load(destination)
        divergence = mean_divergence(reference, calibration.logits(destination))
        kept: tuple[str, ...] = ()
        if divergence > NEGLIGIBLE and fits_one_file(original):
            macs = {node.name: linear_macs(original, node) for node in linears}
            kept = _kept_in_float(quantized, original, macs, calibration.head(_SENSITIVITY_IMAGES), on_step)
            restored = restore(quantized, original, set(kept))
            remaining = mean_divergence(reference, calibration.logits(restored.SerializeToString()))
            if kept and remaining <= _RELIEF * divergence:
                quantized, divergence = restored, remaining
            else:
                kept = ()
    save_model(quantized, path)
    return Quantization(
        runtime="ort", tool=f"onnxruntime {version('onnxruntime')}", images=len(calibration.images), quantized=len(names) - len(kept),
        scheme="int8 weights per channel, inputs uint8 by their smallest and largest value; outputs, attention and the rest fp32",
        kept_in_float=kept, divergence=divergence,
    )  # fmt: skip


def _kept_in_float(
    quantized: onnx.ModelProto, original: onnx.ModelProto, macs: dict[str, int], calibration: Calibration, on_step: OnStep
) -> tuple[str, ...]:
    def progress(done: int, total: int) -> None:
        on_step(f"looking for linears that int8 hurts: {done} of {total}")

    def run(model: onnx.ModelProto) -> Logits:
        return calibration.logits(model.SerializeToString())

    sensitivity = measure_sensitivity(quantized, original, list(macs), run, run(original), progress)
    return sensitive_linears(sensitivity, macs)
