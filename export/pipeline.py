"""The walk from a decomposed model to a bundle: trace, simplify, check, write, verify, compile, describe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from export.engine import EnginePlan, build_engines, plan_engines
from export.guards import check_graph
from export.inspect import low_rank_pairs, operator_counts
from export.metadata import key_fields, write_metadata
from export.online import IMAGES as ONLINE_IMAGES
from export.online import online_form, require_faithful
from export.simplify import simplify
from export.steps import REFERENCE_IMAGES, counter, evaluation_split, file_hashes, require_parity, spread, tool_versions
from export.storage import save_model
from export.trace import BATCH, DEFAULT_OPSET, INPUT, OUTPUT, check_opset, trace
from export.verify import OnnxModel, accuracy, classify, measure_parity, torch_logits
from runtime.bundle import (
    CHECKPOINT,
    MANIFEST,
    MODEL,
    PREDICTIONS,
    REFERENCE,
    Bundle,
    Graph,
    Manifest,
    TensorSpec,
    open_bundle,
)
from vitnla.common.errors import InputError
from vitnla.common.files import atomic_folder, check_free, write_atomically
from vitnla.common.measures import Distillation
from vitnla.data.dataset import Dataset, Split
from vitnla.methods.base import Decomposition
from vitnla.model.checkpoint import write_checkpoint
from vitnla.model.cost import encoder_macs, encoder_parameters
from vitnla.model.vit import VisionTransformer
from vitnla.settings.none import NONE
from vitnla.sources.classes import source_classes
from vitnla.sources.description import Origin, write_description
from vitnla.sources.model import SourceModel

_TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy")


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        name: what tables call the bundle; `None` is the name of its folder.
        opset: ONNX opset of the graph.
        precision: element type of the graph; only `fp32` so far (engines have precisions of their own).
        engine: `none`, or the library that compiles engines: `trt`, `trt-rtx`.
        capabilities: GPUs to compile for, such as `SM89`; none is the library's default.
        engine_precisions: `fp32`, `fp16`.
        profile: batch sizes MIN:OPT:MAX of the engines.
        eval_split: the split on which accuracy is measured.
        eval_images: how many of its first images; `None` is all.
        allow_parity_failure: write the bundle although its logits differ from torch's; the manifest shows by how much.
        force: replace a folder that is already there.
    """

    name: str | None = None
    opset: int = DEFAULT_OPSET
    precision: str = "fp32"
    engine: str = "none"
    capabilities: tuple[str, ...] = ()
    engine_precisions: tuple[str, ...] = ("fp32", "fp16")
    profile: str = "1:16:64"
    eval_split: str = "test"
    eval_images: int | None = None
    allow_parity_failure: bool = False
    force: bool = False


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
    model, config = decomposition.model, decomposition.model.config
    with atomic_folder(destination, replace=options.force) as folder:
        online = online_form(model, source.preprocessing(spread(split.images, ONLINE_IMAGES)))
        require_faithful(online, allowed=options.allow_parity_failure)
        fields = key_fields(source, config, method, version("vitdeploy"))
        graph = _write_graph(folder / MODEL, model, fields, options.opset, on_step)
        exported = OnnxModel(folder / MODEL)
        on_step("verifying the logits")
        images = source.preprocessing(spread(split.images, REFERENCE_IMAGES))
        parity = measure_parity(exported, model, images)
        require_parity(parity, allowed=options.allow_parity_failure, reference="torch's", hint="try another --opset")
        np.savez(folder / REFERENCE, images=images, logits=torch_logits(model, images))
        dense = source_classes(source, split, counter("accuracy of the dense source", on_step))
        classes = classify(exported, source.preprocessing, split.images, counter("accuracy of the exported file", on_step))
        np.savez_compressed(folder / PREDICTIONS, dense=dense, exported=classes)
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
            precision="fp32",
            input=TensorSpec(name=INPUT, dtype="float32", shape=(BATCH, *images.shape[1:])),
            output=TensorSpec(name=OUTPUT, dtype="float32", shape=(BATCH, config.classes)),
            preprocessing=source.preprocessing.model_dump(mode="json"), labels=source.labels,
            accuracy=accuracy(options.eval_split, split, classes, dense), parity=parity, online=online, distillation=distillation, graph=graph,
            tools=tool_versions(_TOOLS), files=file_hashes(folder),
        )  # fmt: skip
        write_atomically(folder / MANIFEST, manifest.to_json())
    return open_bundle(destination)


def check_export(
    source: SourceModel, data: Dataset, options: ExportOptions, destination: Path
) -> tuple[Split, EnginePlan | None]:
    """Refuse, before the long work, what would fail after it; return the images to evaluate on and the engines to compile."""
    check_opset(options.opset)
    if options.precision != "fp32":
        raise InputError(f"expected precision fp32, got '{options.precision}'", "the graph is fp32; engines can also be fp16")
    check_free(destination, replace=options.force)
    split = evaluation_split(data, source.model.config.classes, options.eval_split, options.eval_images)
    return split, plan_engines(options.engine, options.capabilities, options.engine_precisions, options.profile)


def _write_graph(
    path: Path, model: VisionTransformer, fields: dict[str, str], opset: int, on_step: Callable[[str], None]
) -> Graph:
    """Trace the model's exportable form, simplify, check and write it; return what the manifest says of its graph."""
    on_step("tracing")
    traced = trace(model.exportable(), opset)
    on_step("simplifying")
    simplified = simplify(traced, model.config)
    check_graph(simplified.model, model.config)
    graph = Graph(
        opset=opset, operators=operator_counts(simplified.model), low_rank_pairs=len(low_rank_pairs(simplified.model)),
        simplifier=simplified.note,
    )  # fmt: skip
    write_metadata(simplified.model, fields)
    save_model(simplified.model, path)
    return graph


def _write_checkpoint(folder: Path, model: VisionTransformer, source: SourceModel, origin: Origin | None) -> None:
    """Write what makes the bundle a source model again."""
    folder.mkdir()
    write_checkpoint(model, folder)
    write_description(folder, source.preprocessing, source.labels, origin)
