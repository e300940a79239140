"""Constant folding and clean-up by onnxsim; the result is used only if it passes the graph checks.

By itself onnxsim turns every MatMul + Add of tokens into a Gemm between two Reshapes. In fp32 no runtime minds (ONNX Runtime, OpenVINO),
but in OpenVINO's int8 the Reshapes cost a fifth: on DINOv2 ViT-S/14 at batch 16, 79 against 96 ms. So that pass is switched off.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

import onnx

from export.graph.checks import check_graph
from export.graph.files import first_line, fits_one_file
from vitnla.common.errors import VerdictError
from vitnla.model.config import ViTConfig

_SKIPPED = ("fuse_matmul_add_bias_into_gemm_batched",)


@dataclass(frozen=True)
class Simplified:
    """The graph to export, and the simplifier's outcome for the manifest."""

    model: onnx.ModelProto
    note: str


def simplify(model: onnx.ModelProto, config: ViTConfig) -> Simplified:
    """Simplify a traced graph; keep the traced one, with the reason, if the simplifier fails or breaks a guard.

    The traced graph is correct and has been through torch's own optimiser, so it is the better of two answers to a broken
    simplifier; the note goes into the manifest, where it cannot be overlooked. Guards on the graph itself are `check_graph`'s.
    """
    import onnxsim

    tool = f"onnxsim {version('onnxsim')}"
    if not fits_one_file(model):
        return Simplified(model, f"none: {tool} needs the model in one message, and this one has more weights than that allows")
    try:
        simplified, _ = onnxsim.simplify(model, skipped_optimizers=list(_SKIPPED))
        onnx.checker.check_model(simplified, full_check=True)
        check_graph(simplified, config)
    except VerdictError as verdict:
        return Simplified(model, f"none: {tool} was rejected: {verdict.message}")
    except Exception as error:  # onnxsim and the checker share no base class, and neither may cost the user the export
        return Simplified(model, f"none: {tool} failed: {first_line(error)}")
    return Simplified(simplified, tool)
