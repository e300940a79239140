"""Export options, and the export plan derived from them before any long computation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.bundle.steps import evaluation_split
from export.engine.build import EnginePlan, plan_engines
from export.engine.compiler import DEFAULTS, BuildOptions
from export.graph.inputs import Prepare, preparation
from export.graph.preprocessing import Embedding, tensor_specs
from export.graph.trace import DEFAULT_OPSET, check_opset
from export.precision.request import FP8_OPSET, Lowering, plan_lowering
from export.precision.runtimes.base import ASYMMETRIC
from runtime.bundle.schema import TensorSpec
from runtime.runners.registry import runner_names
from vitnla.common.errors import InputError
from vitnla.common.files import check_free
from vitnla.data.dataset import Dataset, Split
from vitnla.sources.source_model import SourceModel


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Args:
        name: of the bundle in tables; `None` is the name of its folder.
        opset: ONNX opset of the graph; `None` is the default for the precision.
        embedding: of the preprocessing into the graph; `None` leaves it to the caller of the graph.
        precision: of the graph; engines of an fp32 bundle have precisions of their own.
        runtime: the runtime that the precision is for; `None` is that of the engine, else ONNX Runtime on the CPU.
        int8_activations: `asymmetric`, or `symmetric` for a few percent more speed in OpenVINO.
        quantization_images: how many images of the calibration split set the ranges of int8 and fp8.
        engine: `none`, or the library that compiles engines: `trt`, `trt-rtx`.
        capabilities: GPUs to compile for, such as `SM89`; none is the library's default.
        engine_precisions: see `export.engine.build.engine_precisions`; none is the default for the graph's precision.
        profile: batch sizes MIN:OPT:MAX of the engines.
        build: optimisation level and compatibility of the engines.
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
        """The opset of the graph: the option, or the default for the precision."""
        return self.opset or (FP8_OPSET if self.precision == "fp8" else DEFAULT_OPSET)

    def lowering(self) -> Lowering:
        """Resolve precision and runtime.

        Raises:
            InputError: the runtime does not compute in that precision, or the opset cannot express it.
            MissingDependencyError: the tool is absent.
        """
        runtime = self.runtime or (
            self.engine if self.engine in runner_names() else "ort"
        )  # plan_engines refuses unknown engines
        return plan_lowering(self.precision, runtime, self.graph_opset, self.int8_activations)


@dataclass(frozen=True)
class ExportPlan:
    """All decisions about an export, made before any long computation.

    Args:
        options: as given.
        data: to verify and score on, and to calibrate lower precisions with.
        destination: the bundle's folder.
        lowering: precision of the graph, and the runtime that it is for.
        opset: of the graph.
        input: of the graph: name, element type, shape.
        output: of the graph.
        prepare: turns images into that input.
        split: the images that accuracy is measured on.
        engines: to compile; `None` for none.
    """

    options: ExportOptions
    data: Dataset
    destination: Path
    lowering: Lowering
    opset: int
    input: TensorSpec
    output: TensorSpec
    prepare: Prepare
    split: Split
    engines: EnginePlan | None


def plan_export(
    source: SourceModel, data: Dataset, options: ExportOptions, destination: Path, lowering: Lowering | None = None
) -> ExportPlan:
    """Plan an export, and detect before any long computation what would fail after it.

    Args:
        source: the dense model.
        data: the data set to verify and score on.
        options: how to export.
        destination: the bundle's folder.
        lowering: of `options`, where the caller has resolved it already.

    Raises:
        InputError: an option cannot be used, the data do not fit the model, or `destination` is taken.
        MissingDependencyError: the precision or the engine needs a package that is absent.
    """
    check_opset(options.graph_opset)
    lowering = lowering or options.lowering()
    check_free(destination, replace=options.force)
    config = source.model.config
    split = evaluation_split(data, source.labels, options.eval_split, options.eval_images)
    if lowering.calibrates and not len(data.split("calibration")):
        raise InputError(
            f"{lowering.precision} needs calibration images, and data '{data.name}' has none",
            "name data with a calibration split, or with training images that one can be taken from",
        )
    engines = plan_engines(
        options.engine, options.capabilities, options.engine_precisions, options.profile, options.precision, options.build
    )
    given, answer = tensor_specs(config, options.embedding)
    prepare = preparation(source.preprocessing, given)
    return ExportPlan(options, data, destination, lowering, options.graph_opset, given, answer, prepare, split, engines)
