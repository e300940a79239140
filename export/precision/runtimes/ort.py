"""INT8 for ONNX Runtime on the CPU, by its own tools."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

from export.graph.files import fits_one_file, save_model
from export.precision.calibration import Calibration, CalibrationImages
from export.precision.linears import encoder_linears, linear_macs, name_nodes
from export.precision.runtimes.base import OnStep, Quantizer
from export.precision.runtimes.patch_embedding import patches_as_product
from export.precision.sensitivity import measure_sensitivity, restore, sensitive_linears
from runtime.bundle.schema import Quantization
from runtime.check.logits import mean_divergence
from runtime.runners.base import Images, Logits
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.model.config import ViTConfig

NEGLIGIBLE = 0.02
"""Mean KL divergence, in nats, up to which no sensitivity is measured: at 0.008, DINOv2 ViT-S/14 lost no point."""
_RELIEF = 0.8
"""Linears are kept in float only if together they bring the divergence below this share of what it was."""
_SENSITIVITY_IMAGES = 64
_OPERATORS = ["MatMul", "Gemm"]


class OrtQuantizer(Quantizer):
    """Quantiser to `int8` by static Q/DQ, with sensitive linears kept in float, and to `int8-dynamic` without calibration."""

    def describe(self, target: RuntimePrecision, activations: str) -> str:
        """See `Quantizer`."""
        if target.precision == "int8-dynamic":
            return "int8 weights per channel, inputs uint8 by the range of each run"
        return "int8 weights per channel, inputs uint8 by their smallest and largest value; outputs, attention and the rest fp32"

    def quantize(
        self, path: Path, target: RuntimePrecision, activations: str, config: ViTConfig, calibration: Calibration, on_step: OnStep
    ) -> Quantization:
        """See `Quantizer`."""
        if target.precision == "int8-dynamic":
            return self._quantize_dynamically(path, target, activations, config)
        original = merge_biases(patches_as_product(onnx.load(path)))
        name_nodes(original)
        linears = encoder_linears(original, config)
        with tempfile.TemporaryDirectory() as folder:
            source, destination = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
            save_model(original, source)
            quantize_linears(source, destination, [node.name for node in linears], calibration.images)
            reference = calibration.logits(source)
            quantized = onnx.load(destination)
            divergence = mean_divergence(reference, calibration.logits(destination))
        kept: tuple[str, ...] = ()
        if divergence > NEGLIGIBLE and fits_one_file(original):
            macs = {node.name: linear_macs(original, node) for node in linears}
            sensitive = _kept_in_float(quantized, original, macs, calibration.head(_SENSITIVITY_IMAGES), on_step)
            restored = restore(quantized, original, set(sensitive))
            remaining = mean_divergence(reference, calibration.logits(restored.SerializeToString()))
            if sensitive and remaining <= _RELIEF * divergence:
                quantized, divergence, kept = restored, remaining, sensitive
        save_model(quantized, path)
        return Quantization(
            runtime=target.runtime, tool=_tool(), images=len(calibration.images), quantized=len(linears) - len(kept),
            scheme=self.describe(target, activations), kept_in_float=kept, divergence=divergence,
        )  # fmt: skip

    def _quantize_dynamically(self, path: Path, target: RuntimePrecision, activations: str, config: ViTConfig) -> Quantization:
        original = onnx.load(path)
        name_nodes(original)
        names = [node.name for node in encoder_linears(original, config)]
        with tempfile.TemporaryDirectory() as folder:
            source, destination = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
            save_model(original, source)
            quantize_linears_dynamically(source, destination, names)
            save_model(onnx.load(destination), path)
        return Quantization(
            runtime=target.runtime, tool=_tool(), images=0, quantized=len(names), scheme=self.describe(target, activations)
        )


def merge_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """Merge MatMul + Add into Gemm between Reshapes: ONNX Runtime has one kernel for a quantised Gemm with bias.

    On DINOv2 ViT-S/14 at batch 16 that is 5 to 9 % faster than a quantised MatMul and an Add. A model above 2 GB stays as it is.
    """
    import onnxsim

    return onnxsim.simplify(model)[0] if fits_one_file(model) else model


def quantize_linears(source: Path, destination: Path, linears: list[str], images: Images) -> None:
    """Put Q/DQ around the linears named: weights int8 symmetric per output channel, inputs uint8 by minimum and maximum.

    Per-channel weights are needed: with one scale per matrix, DINOv2 ViT-S/14 loses 3.5 points. Outputs stay in float, which costs
    nothing, because what follows a linear (softmax, GELU, residual sum) is computed in float anyway.

    Args:
        source: float graph whose nodes have names.
        destination: where the quantised graph is written.
        linears: names of MatMul and Gemm nodes.
        images: preprocessed calibration images [N, C, H, W].
    """
    _silence_advice()
    quantize_static(
        source, destination, CalibrationImages(images), quant_format=QuantFormat.QDQ, op_types_to_quantize=_OPERATORS,
        per_channel=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=linears,
        calibrate_method=CalibrationMethod.MinMax, use_external_data_format=_external(source),
        extra_options={"OpTypesToExcludeOutputQuantization": _OPERATORS},
    )  # fmt: skip


def quantize_linears_dynamically(source: Path, destination: Path, linears: list[str]) -> None:
    """Quantise weights as `quantize_linears` does; input ranges are computed in every run, so no calibration is needed."""
    _silence_advice()
    quantize_dynamic(
        source, destination, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
        nodes_to_quantize=linears, use_external_data_format=_external(source), extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip


def _external(path: Path) -> bool:
    return path.with_name(f"{path.name}.data").exists()


def _silence_advice() -> None:
    """Silence the advice of both tools, on the root logger, to run a pre-processing that our simplifier has already done."""
    logging.getLogger().addFilter(_not_advice)  # adding it a second time changes nothing


def _not_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()


def _tool() -> str:
    return f"onnxruntime {onnxruntime.__version__}"


def _kept_in_float(
    quantized: onnx.ModelProto, original: onnx.ModelProto, macs: dict[str, int], calibration: Calibration, on_step: OnStep
) -> tuple[str, ...]:
    def progress(done: int, total: int) -> None:
        on_step(f"looking for linears that int8 hurts: {done} of {total}")

    def run(model: onnx.ModelProto) -> Logits:
        return calibration.logits(model.SerializeToString())

    sensitivity = measure_sensitivity(quantized, original, list(macs), run, run(original), progress)
    return sensitive_linears(sensitivity, macs)
