"""INT8 for ONNX Runtime on the CPU, by its own tools."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

from export.graph.files import fits_one_file
from export.precision.calibration import CalibrationImages
from runtime.runners.base import Images

_OPERATORS = ["MatMul", "Gemm"]


def merge_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """MatMul + Add as Gemm, between Reshapes: ONNX Runtime has one kernel for a quantised Gemm, bias included.

    On DINOv2 ViT-S/14 at batch 16 that is 5 to 9 % faster than a quantised MatMul and an Add. A model above 2 GB stays as it is.
    """
    import onnxsim

    return onnxsim.simplify(model)[0] if fits_one_file(model) else model


def quantize_linears(source: Path, destination: Path, linears: list[str], images: Images) -> None:
    """Q/DQ around the linears named: weights int8 symmetric per output channel, inputs uint8 by their smallest and largest value.

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
    """Weights as in `quantize_linears`; the range of each input is found anew in every run, so no calibration is needed."""
    _silence_advice()
    quantize_dynamic(
        source, destination, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QInt8,
        nodes_to_quantize=linears, use_external_data_format=_external(source), extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip


def _external(path: Path) -> bool:
    return path.with_name(f"{path.name}.data").exists()


def _silence_advice() -> None:
    """Both tools advise, on the root logger, to run a pre-processing that our simplifier has already done."""
    logging.getLogger().addFilter(_not_advice)  # adding it a second time changes nothing


def _not_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()
