"""Export of a decomposed model to a bundle: trace, simplify, check, write, verify, lower, compile, describe."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.bundle.loss_attribution import LossAttribution, Predictions, Stage
from export.bundle.plan import ExportOptions, ExportPlan, plan_export
from export.bundle.steps import REFERENCE_IMAGES, counter, evenly_spaced, require_parity
from export.bundle.writer import BundleWriter, describe_graph, new_bundle, tool_versions
from export.engine.build import build_engines
from export.graph.checks import check_graph
from export.graph.files import save_model
from export.graph.metadata import key_fields, write_metadata, write_metadata_into
from export.graph.online_form import IMAGES as ONLINE_IMAGES
from export.graph.online_form import online_form, require_faithful
from export.graph.parity import OnnxModel, as_logits, measure_parity, runtime_model, torch_logits
from export.graph.preprocessing import embed
from export.graph.preprocessing_twin import EmbeddedViT, require_same_pixels
from export.graph.simplify import simplify
from export.graph.trace import trace
from export.precision.calibration import Calibration
from export.precision.lower import lower
from runtime.bundle.schema import CHECKPOINT, Bundle, Embedded, Graph, Manifest, Parity, Quantization, open_bundle
from runtime.check.logits import relative_error
from runtime.check.parity import TOLERANCES
from runtime.runners.base import Images, Logits
from vitnla.common.errors import VerdictError
from vitnla.data.dataset import Dataset
from vitnla.data.load import load_data
from vitnla.decomposition import DecomposedModel, OnStep
from vitnla.methods.none.config import NONE
from vitnla.model.checkpoint import write_checkpoint
from vitnla.model.cost import encoder_macs, encoder_parameters
from vitnla.sources.description import Origin, write_description
from vitnla.sources.source_logits import source_logits

_TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy")


def export_bundle(
    decomposed: DecomposedModel, destination: Path | str, options: ExportOptions | None = None, *,
    data: Dataset | str | None = None, command: str = "export_bundle", on_step: OnStep = lambda step: None,
) -> Bundle:  # fmt: skip
    """Export a decomposed model as a verified bundle. The folder at `destination` is created atomically.

    Args:
        decomposed: what `vitnla.decompose` returned.
        destination: the bundle's folder.
        options: how to export; `None` is the defaults of `ExportOptions`.
        data: images for parity, accuracy and the reference, or a data SPEC; `None` is the data that it was calibrated on.
        command: the command line, for the manifest.
        on_step: called with a line of text before each step.

    Raises:
        InputError: an option cannot be used, the data do not fit the model, or `destination` cannot be written.
        VerdictError: the graph lost something that it must keep, or its logits are not torch's.
        MissingDependencyError: the engine's compiler is absent.
    """
    data = decomposed.data if data is None else load_data(data) if isinstance(data, str) else data
    plan = plan_export(decomposed.source, data, options or ExportOptions(), Path(destination))
    return write_model_bundle(decomposed, plan, command, on_step)


def write_model_bundle(decomposed: DecomposedModel, plan: ExportPlan, command: str, on_step: OnStep) -> Bundle:
    """Export a bundle according to a plan.

    Raises:
        InputError: `plan.destination` cannot be written.
        VerdictError: the graph lost something that it must keep, or its logits are not torch's.
    """
    with new_bundle(plan.destination, replace=plan.options.force) as writer:
        _ModelExport(decomposed, plan, command, writer, on_step).run()
    return open_bundle(plan.destination)


class _ModelExport:
    """One export of a torch model: its steps and the state between them."""

    def __init__(
        self, decomposed: DecomposedModel, plan: ExportPlan, command: str, writer: BundleWriter, on_step: OnStep
    ) -> None:
        self._source, self._model, self._method = decomposed.source, decomposed.model, decomposed.method
        self._decomposed, self._plan, self._command = decomposed, plan, command
        self._writer, self._on_step = writer, on_step
        self._read = as_logits(plan.output.name)

    def run(self) -> None:
        """Trace, verify, lower, compile, describe."""
        source, model, plan, writer = self._source, self._model, self._plan, self._writer
        allowed = plan.options.allow_parity_failure
        online = online_form(model, source.preprocessing(evenly_spaced(plan.split.images, ONLINE_IMAGES)))
        require_faithful(online, allowed=allowed)
        images = plan.prepare(evenly_spaced(plan.split.images, REFERENCE_IMAGES))
        exact, embedded = self._exact_model(images)
        fields = key_fields(source, model.config, self._method, version("vitdeploy"), embedded=embedded is not None)
        graph = self._write_graph(fields)
        exported = OnnxModel(writer.model_path)
        parity = self._verify(exported, exact, images)

        attribution = self._dense_predictions()
        self._record(attribution, "decomposition", "ONNX Runtime fp32", exported)
        quantization, precision_error = self._lower(fields, attribution)
        origin = self._origin()
        self._write_checkpoint(origin)
        if plan.engines is not None:
            build_engines(writer.folder, plan.engines, self._on_step)
        manifest = Manifest(
            name=plan.options.name or plan.destination.name, created=writer.created, command=self._command,
            source=source.spec, source_sha256=source.sha256, notes=source.notes, data=self._plan.data.name, method=self._method,
            method_config=self._decomposed.config.model_dump(mode="json"),
            model=model.config.model_dump(mode="json"), layers=self._decomposed.decomposition.layers,
            macs=encoder_macs(model.config, source.model.config), parameters=encoder_parameters(model.config, source.model.config),
            precision=plan.lowering.precision, runtime=plan.lowering.runtime, quantization=quantization,
            input=plan.input, output=plan.output, answers=embedded.output if embedded else "logits",
            preprocessing=source.preprocessing.model_dump(mode="json"), embedded=embedded,
            labels=source.labels, accuracy=attribution.accuracy(plan.options.eval_split), parity=parity,
            precision_error=precision_error, online=online, distillation=self._decomposed.distillation, graph=graph,
            tools=tool_versions(_TOOLS), files={},
        )  # fmt: skip
        if plan.lowering.needs_its_runtime:
            stage: Stage = "runtime" if plan.lowering.changes_graph else "precision"
            label = f"{plan.lowering.runtime} {plan.lowering.precision}"
            with runtime_model(Bundle(writer.folder, manifest), plan.lowering.runtime) as deployed:
                self._record(attribution, stage, label, deployed)
        writer.finish(manifest, attribution, plan.options.eval_split)

    def _exact_model(self, images: NDArray[Any]) -> tuple[nn.Module, Embedded | None]:
        """Return the torch model with the graph's input, and the manifest's record of preprocessing inside the graph."""
        embedding, preprocessing = self._plan.options.embedding, self._source.preprocessing
        if embedding is None:
            return self._model, None
        twin = EmbeddedViT(self._model, embedding.pixel_map(preprocessing), embedding.output)
        return twin, Embedded(output=embedding.output, grey_levels=require_same_pixels(twin, preprocessing, images))

    def _write_graph(self, fields: dict[str, str]) -> Graph:
        """Trace the model's exportable form, simplify, check and write it; return the manifest's record of the graph."""
        plan, config = self._plan, self._model.config
        self._on_step("tracing")
        traced = trace(self._model.exportable(), plan.opset)
        self._on_step("simplifying")
        simplified = simplify(traced, config)
        made, embedding = simplified.model, plan.options.embedding
        if embedding is not None:
            made = embed(made, embedding.pixel_map(self._source.preprocessing), (plan.input, plan.output))
        check_graph(made, config, embedding)
        graph = describe_graph(made, plan.opset, simplified.note)
        write_metadata(made, fields)
        save_model(made, self._writer.model_path)
        return graph

    def _verify(self, exported: OnnxModel, exact: nn.Module, images: NDArray[Any]) -> Parity:
        """Compare the written graph's logits with torch's, and store torch's as the reference."""
        self._on_step("verifying the logits")
        parity = measure_parity(exported, exact, images)
        allowed = self._plan.options.allow_parity_failure
        require_parity(parity, allowed=allowed, reference="torch's", hint="try another --opset")
        self._writer.write_reference(images, torch_logits(exact, images))
        return parity

    def _dense_predictions(self) -> LossAttribution:
        """Start the loss attribution with the dense source and the loss of resizing pixels inside the graph."""
        plan, source = self._plan, self._source
        progress = counter("accuracy of the dense source", self._on_step)
        dense = Predictions("dense, torch fp32", source_logits(source, plan.split, progress))
        attribution = LossAttribution(plan.prepare, plan.split, dense)
        embedding = plan.options.embedding
        if embedding is not None and embedding.size is not None:
            # Pixels that come in another size are other pixels: what that costs is not the decomposition's doing.
            height, width = embedding.size
            resized = EmbeddedViT(source.model, embedding.pixel_map(source.preprocessing), "logits")
            label, progress = (
                f"dense, torch fp32, from {height} x {width} pixels",
                counter("accuracy of the resized source", self._on_step),
            )
            attribution.record("preprocessing", label, lambda batch: torch_logits(resized, batch), progress)
        return attribution

    def _record(self, attribution: LossAttribution, stage: Stage, runtime: str, model: Callable[[Images], Logits]) -> None:
        label = f"{self._method}, {runtime}"
        attribution.record(stage, label, lambda batch: self._read(model(batch)), counter(f"accuracy of {label}", self._on_step))

    def _lower(self, fields: dict[str, str], attribution: LossAttribution) -> tuple[Quantization | None, float | None]:
        """Convert the graph to the planned precision; return its quantisation record and its logits' error against torch."""
        lowering, path = self._plan.lowering, self._writer.model_path
        if not lowering.changes_graph:
            return None, None
        calibration = Calibration(self._calibration_images(), self._read)
        quantization = lower(path, lowering, self._model.config.exportable(), calibration, self._on_step)
        write_metadata_into(path, fields)
        lowered = OnnxModel(path)
        error = _require_precision(lowered, self._writer.reference_path, self._plan)
        self._record(attribution, "precision", f"ONNX Runtime {lowering.precision}", lowered)
        return quantization, error

    def _calibration_images(self) -> NDArray[Any]:
        plan, images = self._plan, self._plan.data.split("calibration").images
        count = min(plan.options.quantization_images, len(images)) if plan.lowering.calibrates else 0
        return plan.prepare(evenly_spaced(images, count)) if count else np.empty((0,), np.float32)

    def _origin(self) -> Origin | None:
        if self._method == NONE:
            return None
        return Origin(
            source=self._source.spec, source_sha256=self._source.sha256, options=self._source.options, method=self._method,
            method_config=self._decomposed.config.model_dump(mode="json"),
            layers=self._decomposed.decomposition.layers, distillation=self._decomposed.distillation,
        )  # fmt: skip

    def _write_checkpoint(self, origin: Origin | None) -> None:
        """Write the checkpoint that makes the bundle a source model again."""
        folder = self._writer.folder / CHECKPOINT
        folder.mkdir()
        write_checkpoint(self._model, folder)
        write_description(folder, self._source.preprocessing, self._source.labels, origin)


def _require_precision(lowered: OnnxModel, reference: Path, plan: ExportPlan) -> float:
    """Return the error of the lowered graph against torch; raise if the precision has destroyed the model."""
    with np.load(reference, allow_pickle=False) as arrays:
        error = relative_error(lowered(arrays["images"]), arrays["logits"])
    precision = plan.lowering.precision
    tolerance = TOLERANCES[precision]
    if not np.isfinite(error) or (error > tolerance and not plan.options.allow_parity_failure):
        raise VerdictError(
            f"in {precision} the logits differ from torch's by {error:.1e} of the largest, expected at most {tolerance:.0e}",
            "use more --quantization-images or another precision; --allow-parity-failure writes the bundle all the same",
        )
    return error
