"""How to export, and what is refused before the long work begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.bundle.steps import evaluation_split
from export.engine.build import EnginePlan, plan_engines
from export.engine.compiler import DEFAULTS, BuildOptions
from export.graph.preprocessing import Embedding
from export.graph.trace import DEFAULT_OPSET, check_opset
from export.precision.request import ASYMMETRIC, FP8_OPSET, PRECISIONS, Lowering, plan_lowering
from vitnla.common.errors import InputError
from vitnla.common.files import check_free
from vitnla.data.dataset import Dataset, Split
from vitnla.sources.source_model import SourceModel


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        name: what tables call the bundle; `None` is the name of its folder.
        opset: ONNX opset of the graph; `None` is the default for the precision.
        embedding: of the preprocessing into the graph; `None` leaves it to whoever runs the graph.
        precision: of the graph; engines of an fp32 bundle have precisions of their own.
        runtime: the runtime that the precision is for; `None` is that of the engine, else ONNX Runtime on the CPU.
        int8_activations: `asymmetric`, or `symmetric` for a few percent more speed in OpenVINO.
        quantization_images: how many images of the calibration split set the ranges of int8 and fp8.
        engine: `none`, or the library that compiles engines: `trt`, `trt-rtx`.
        capabilities: GPUs to compile for, such as `SM89`; none is the library's default.
        engine_precisions: see `export.engine.build.PRECISIONS`; none is the default for the graph's precision.
        profile: batch sizes MIN:OPT:MAX of the engines.
        build: how hard the engines' compiler tries, and where else they shall run.
        eval_split: the split on which accuracy is measured.
        eval_images: how many of its first images; `None` is all.
        allow_parity_failure: write the bundle although its logits differ from torch's; the manifest shows by how much.
        force: replace a folder that is already there.
    """

    name: str | None = None
    opset: int | None = None
    embedding: Embedding | None = None
    precision: str = "fp32"
    runtime: str | None = None
    int8_activations: str = ASYMMETRIC
    quantization_images: int = 256
    engine: str = "none"
    capabilities: tuple[str, ...] = ()
    engine_precisions: tuple[str, ...] = ()
    profile: str = "1:16:64"
    build: BuildOptions = DEFAULTS
    eval_split: str = "test"
    eval_images: int | None = None
    allow_parity_failure: bool = False
    force: bool = False

    @property
    def graph_opset(self) -> int:
        """The opset that is written."""
        return self.opset or (FP8_OPSET if self.precision == "fp8" else DEFAULT_OPSET)

    def lowering(self) -> Lowering:
        """Raises: InputError, MissingDependencyError: see `plan_lowering`."""
        runtime = self.runtime or (
            self.engine if self.engine in PRECISIONS else "ort"
        )  # unknown engines are plan_engines' to refuse
        return plan_lowering(self.precision, runtime, self.graph_opset, self.int8_activations)


def check_export(
    source: SourceModel, data: Dataset, options: ExportOptions, destination: Path
) -> tuple[Split, EnginePlan | None]:
    """Refuse, before the long work, what would fail after it; return the images to evaluate on and the engines to compile."""
    check_opset(options.graph_opset)
    lowering = options.lowering()
    check_free(destination, replace=options.force)
    split = evaluation_split(data, source.labels, options.eval_split, options.eval_images)
    if lowering.calibrates and not len(data.split("calibration")):
        raise InputError(
            f"{lowering.precision} needs calibration images, and data '{data.name}' has none",
            "name data with a calibration split, or with training images that one can be taken from",
        )
    plan = plan_engines(
        options.engine, options.capabilities, options.engine_precisions, options.profile, options.precision, options.build
    )
    return split, plan
