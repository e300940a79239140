"""The walk from a decomposed model to a bundle: trace, simplify, check, write, verify, compile, describe."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.bundle.loss_attribution import Answers, Journey, Stage
from export.bundle.plan import ExportOptions, check_export
from export.bundle.steps import REFERENCE_IMAGES, counter, file_hashes, require_parity, spread, tool_versions
from export.engine.build import build_engines
from export.graph.checks import check_graph
from export.graph.files import save_model
from export.graph.inputs import Prepare, preparation
from export.graph.inspect import low_rank_pairs, operator_counts
from export.graph.metadata import key_fields, write_metadata, write_metadata_into
from export.graph.online_form import IMAGES as ONLINE_IMAGES
from export.graph.online_form import online_form, require_faithful
from export.graph.parity import OnnxModel, as_logits, measure_parity, runtime_model, torch_logits
from export.graph.preprocessing import Embedding, embed, tensor_specs
from export.graph.preprocessing_twin import EmbeddedViT, require_same_pixels
from export.graph.simplify import simplify
from export.graph.trace import trace
from export.precision.calibration import Calibration
from export.precision.lower import lower
from export.precision.request import Lowering
from runtime.bundle.schema import (
    CHECKPOINT,
    MANIFEST,
    MODEL,
    PREDICTIONS,
    REFERENCE,
    Bundle,
    Embedded,
    Graph,
    Manifest,
    Parity,
    open_bundle,
)
from runtime.check.logits import relative_error
from runtime.check.parity import TOLERANCES
from runtime.runners.base import Images, Logits
from vitnla.common.errors import VerdictError
from vitnla.common.files import atomic_folder, write_atomically
from vitnla.common.measures import Distillation
from vitnla.data.dataset import Dataset, Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods.none.config import NONE
from vitnla.methods.registry import Decomposition
from vitnla.model.checkpoint import write_checkpoint
from vitnla.model.cost import encoder_macs, encoder_parameters
from vitnla.model.vit import VisionTransformer
from vitnla.sources.description import Origin, write_description
from vitnla.sources.source_logits import source_logits
from vitnla.sources.source_model import SourceModel

_TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy")


def export_bundle(
    source: SourceModel, decomposition: Decomposition, *, method: str, method_config: dict[str, Any], data: Dataset,
    destination: Path, options: ExportOptions, command: str, distillation: Distillation | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Bundle:  # fmt: skip
    """Export a decomposed model as a bundle. The folder appears at `destination` whole, or not at all.

    Args:
        source: the model that was decomposed: its preprocessing and labels, and the dense answers to agree with.
        decomposition: the model to export.
        method: name of the method that made it, and `method_config` its settings as JSON.
        data: images for parity, accuracy and the reference.
        destination: the bundle's folder.
        options: see `ExportOptions`.
        command: the command line, for the manifest.
        distillation: how the model was trained after the method had made it, if it was.
        on_step: told what is being done.

    Raises:
        InputError: an option cannot be used, the data do not fit the model, or `destination` cannot be written.
        VerdictError: the graph lost something that it must keep, or its logits are not torch's.
        MissingDependencyError: the engine's compiler is absent.
    """
    split, plan = check_export(source, data, options, destination)
    lowering = options.lowering()
    model, config = decomposition.model, decomposition.model.config
    specs = tensor_specs(config, options.embedding)
    prepare = preparation(source.preprocessing, specs[0])
    with atomic_folder(destination, replace=options.force) as folder:
        online = online_form(model, source.preprocessing(spread(split.images, ONLINE_IMAGES)))
        require_faithful(online, allowed=options.allow_parity_failure)
        images = prepare(spread(split.images, REFERENCE_IMAGES))
        exact, embedded = _exact(source.preprocessing, model, images, options.embedding)
        fields = key_fields(source, config, method, version("vitdeploy"), embedded=embedded is not None)
        graph = _write_graph(folder / MODEL, model, fields, source.preprocessing, options, on_step)
        exported = OnnxModel(folder / MODEL)
        parity = _verify(exported, exact, images, folder / REFERENCE, options, on_step)

        read = as_logits(embedded.output if embedded else "logits")
        journey = _set_out(source, split, prepare, options, on_step)
        _ask(journey, "decomposition", f"{method}, ONNX Runtime fp32", exported, read, on_step)
        quantization = precision_error = None
        if lowering.changes_graph:
            calibration = Calibration(_calibration_images(prepare, data, options, lowering), read)
            quantization = lower(folder / MODEL, lowering, config.exportable(), calibration, on_step)
            write_metadata_into(folder / MODEL, fields)
            lowered = OnnxModel(folder / MODEL)
            precision_error = _require_precision(lowered, folder / REFERENCE, lowering, allowed=options.allow_parity_failure)
            _ask(journey, "precision", f"{method}, ONNX Runtime {lowering.precision}", lowered, read, on_step)

        origin = None if method == NONE else Origin(
            source=source.spec, source_sha256=source.sha256, method=method, method_config=method_config,
            layers=decomposition.layers, distillation=distillation,
        )  # fmt: skip
        _write_checkpoint(folder / CHECKPOINT, model, source, origin)
        if plan is not None:
            build_engines(folder, plan, on_step)
        manifest = Manifest(
            name=options.name or destination.name, created=datetime.now(UTC).isoformat(timespec="seconds"), command=command,
            source=source.spec, source_sha256=source.sha256, data=data.name, method=method, method_config=method_config,
            model=config.model_dump(mode="json"), layers=decomposition.layers,
            macs=encoder_macs(config, source.model.config), parameters=encoder_parameters(config, source.model.config),
            precision=lowering.precision, runtime=lowering.runtime, quantization=quantization,
            input=specs[0], output=specs[1], answers=embedded.output if embedded else "logits",
            preprocessing=source.preprocessing.model_dump(mode="json"), embedded=embedded, labels=source.labels,
            accuracy=journey.accuracy(options.eval_split), parity=parity, precision_error=precision_error, online=online,
            distillation=distillation, graph=graph, tools=tool_versions(_TOOLS), files={},
        )  # fmt: skip
        if lowering.needs_its_runtime:
            stage: Stage = "runtime" if lowering.changes_graph else "precision"
            with runtime_model(Bundle(folder, manifest), lowering.runtime) as deployed:
                _ask(journey, stage, f"{method}, {lowering.runtime} {lowering.precision}", deployed, read, on_step)
        np.savez_compressed(folder / PREDICTIONS, dense=journey.dense.classes, exported=journey.last.classes)
        accuracy = journey.accuracy(options.eval_split)
        manifest = manifest.model_copy(update={"accuracy": accuracy, "losses": journey.stages, "files": file_hashes(folder)})
        write_atomically(folder / MANIFEST, manifest.to_json())
    return open_bundle(destination)


def _write_graph(
    path: Path, model: VisionTransformer, fields: dict[str, str], preprocessing: Preprocessing, options: ExportOptions,
    on_step: Callable[[str], None],
) -> Graph:  # fmt: skip
    """Trace the model's exportable form, simplify, check and write it; return what the manifest says of its graph."""
    on_step("tracing")
    traced = trace(model.exportable(), options.graph_opset)
    on_step("simplifying")
    simplified = simplify(traced, model.config)
    made, embedding = simplified.model, options.embedding
    if embedding is not None:
        made = embed(made, embedding.pixel_map(preprocessing), tensor_specs(model.config, embedding))
    check_graph(made, model.config, embedding)
    graph = Graph(
        opset=options.graph_opset, operators=operator_counts(made), low_rank_pairs=len(low_rank_pairs(made)),
        simplifier=simplified.note,
    )  # fmt: skip
    write_metadata(made, fields)
    save_model(made, path)
    return graph


def _verify(
    exported: OnnxModel, exact: nn.Module, images: NDArray[Any], reference: Path, options: ExportOptions,
    on_step: Callable[[str], None],
) -> Parity:  # fmt: skip
    """Compare the written graph's logits with torch's, and keep torch's as the reference."""
    on_step("verifying the logits")
    parity = measure_parity(exported, exact, images)
    require_parity(parity, allowed=options.allow_parity_failure, reference="torch's", hint="try another --opset")
    np.savez(reference, images=images, logits=torch_logits(exact, images))
    return parity


def _set_out(
    source: SourceModel, split: Split, prepare: Prepare, options: ExportOptions, on_step: Callable[[str], None]
) -> Journey:
    """The dense source's answers, from which every step's loss is counted, and what resizing pixels in the graph costs it."""
    dense = Answers("dense, torch fp32", source_logits(source, split, counter("accuracy of the dense source", on_step)))
    journey = Journey(prepare, split, dense)
    if options.embedding is not None and options.embedding.size is not None:
        # Pixels that come in another size are other pixels: what that costs is not the decomposition's doing.
        height, width = options.embedding.size
        resized = EmbeddedViT(source.model, options.embedding.pixel_map(source.preprocessing), "logits")
        by, count = f"dense, torch fp32, from {height} x {width} pixels", counter("accuracy of the resized source", on_step)
        journey.go("preprocessing", by, lambda batch: torch_logits(resized, batch), count)
    return journey


def _ask(
    journey: Journey, stage: Stage, by: str, model: Callable[[Images], Logits], read: Callable[[Logits], Logits],
    on_step: Callable[[str], None],
) -> None:  # fmt: skip
    """The next step of the journey: the answers of the model that it made."""
    journey.go(stage, by, lambda batch: read(model(batch)), counter(f"accuracy of {by}", on_step))


def _calibration_images(prepare: Prepare, data: Dataset, options: ExportOptions, lowering: Lowering) -> NDArray[Any]:
    images = data.split("calibration").images
    count = min(options.quantization_images, len(images)) if lowering.calibrates else 0
    return prepare(spread(images, count)) if count else np.empty((0,), np.float32)


def _require_precision(lowered: OnnxModel, reference: Path, lowering: Lowering, *, allowed: bool) -> float:
    """How far the lowered graph is from torch; refuse a graph that the precision has destroyed."""
    with np.load(reference, allow_pickle=False) as arrays:
        error = relative_error(lowered(arrays["images"]), arrays["logits"])
    tolerance = TOLERANCES[lowering.precision]
    if not np.isfinite(error) or (error > tolerance and not allowed):
        raise VerdictError(
            f"in {lowering.precision} the logits differ from torch's by {error:.1e} of the largest, expected at most {tolerance:.0e}",
            "use more --quantization-images or another precision; --allow-parity-failure writes the bundle all the same",
        )
    return error


def _exact(
    preprocessing: Preprocessing, model: VisionTransformer, images: NDArray[Any], embedding: Embedding | None
) -> tuple[nn.Module, Embedded | None]:
    """What torch does with the graph's input, and what the manifest says of the preprocessing that is part of it."""
    if embedding is None:
        return model, None
    twin = EmbeddedViT(model, embedding.pixel_map(preprocessing), embedding.output)
    return twin, Embedded(output=embedding.output, grey_levels=require_same_pixels(twin, preprocessing, images))


def _write_checkpoint(folder: Path, model: VisionTransformer, source: SourceModel, origin: Origin | None) -> None:
    """Write what makes the bundle a source model again."""
    folder.mkdir()
    write_checkpoint(model, folder)
    write_description(folder, source.preprocessing, source.labels, origin)
