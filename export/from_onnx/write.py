"""Export of a decomposed graph to a bundle: write, verify, describe. Without a torch model there is no checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir

from export.bundle.loss_attribution import LossAttribution, Predictions
from export.bundle.steps import REFERENCE_IMAGES, counter, evenly_spaced, require_parity
from export.bundle.writer import describe_graph, new_bundle, tool_versions
from export.from_onnx.decompose import GraphDecomposition
from export.from_onnx.request import OnnxRequest
from export.from_onnx.session import GraphSession
from export.from_onnx.source import OnnxSource
from export.graph.files import save_model
from export.graph.metadata import fields, read_metadata, write_metadata
from export.graph.parity import BATCHES, answer, as_logits, compare
from runtime.bundle.schema import (
    Bundle,
    Graph,
    Manifest,
    Reference,
    TensorSpec,
    open_bundle,
)
from runtime.check.logits import are_probabilities
from vitnla.common.schema import Record
from vitnla.data.dataset import Split
from vitnla.data.preprocessing import Preprocessing

_TOOLS = ("onnx", "onnx-ir", "onnxruntime", "numpy", "scipy")
_BATCH = "batch"


@dataclass(frozen=True, eq=False)
class Work:
    """The graph to write, and its origin.

    Args:
        source: the original graph.
        model: the decomposed graph.
        result: of the method.
        image: (C, H, W).
    """

    source: OnnxSource
    model: ir.Model
    result: GraphDecomposition
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    image: tuple[int, int, int]


def write_bundle(
    work: Work, request: OnnxRequest, config: Record, data: tuple[str, Split], destination: Path, on_step: Callable[[str], None]
) -> Bundle:
    """Write and verify a bundle. The folder at `destination` is created atomically.

    Parity is between the written file, as ONNX Runtime runs it, and a reference graph in memory that ONNX Runtime may not
    optimise: the original where the method changed nothing, else the rewritten one (see `runtime.bundle.schema.Reference`). Accuracy
    and agreement are those of the written file beside the original graph.

    Args:
        config: the method's.
        data: name of the data, and the images to evaluate on.

    Raises:
        InputError: `destination` cannot be written.
        VerdictError: the written file does not give the reference's logits, or is not valid ONNX.
    """
    source, result, (name, split) = work.source, work.result, data
    images = work.preprocessing(evenly_spaced(split.images, REFERENCE_IMAGES))
    with new_bundle(destination, replace=request.force) as writer:
        on_step("writing the graph")
        graph = _write_graph(writer.model_path, work, request.method)
        exported = GraphSession(writer.model_path, source.batch)
        on_step("verifying the logits")
        kind: Reference = "original-onnx" if result.exact else "rewritten-onnx"
        reference = GraphSession(source.model if result.exact else work.model, source.batch, optimised=False)
        parity = compare(exported, reference, images, BATCHES if source.batch is None else (source.batch,))
        allowed = request.allow_parity_failure
        require_parity(parity, allowed=allowed, reference=f"those of the {kind} graph", hint="try another version of onnxruntime")
        writer.write_reference(images, reference(images))
        original = GraphSession(source.model, source.batch)
        answers: Literal["logits", "probabilities"] = "probabilities" if are_probabilities(original(images)) else "logits"
        read = as_logits(answers)
        progress = counter("accuracy of the original graph", on_step)
        dense = read(answer(original, work.preprocessing, split.images, progress))
        attribution = LossAttribution(work.preprocessing, split, Predictions("dense, ONNX Runtime fp32", dense))
        progress = counter("accuracy of the exported file", on_step)
        label = f"{request.method}, ONNX Runtime fp32"
        attribution.record("decomposition", label, lambda batch: read(exported(batch)), progress)
        batch = source.batch or _BATCH
        manifest = Manifest(
            name=request.name or destination.name, created=writer.created,
            command=request.command, source=source.spec, source_sha256=source.sha256, data=name, method=request.method,
            method_config=config.model_dump(mode="json"), model=None, layers=result.layers, macs=result.macs,
            parameters=result.parameters, precision="fp32",
            input=TensorSpec(name=source.input, dtype="float32", shape=(batch, *work.image)),
            output=TensorSpec(name=source.output, dtype="float32", shape=(batch, len(work.labels))),
            answers=answers, preprocessing=work.preprocessing.model_dump(mode="json"), labels=work.labels,
            accuracy=attribution.accuracy(request.eval_split), parity=parity, reference=kind, graph=graph,
            tools=tool_versions(_TOOLS), files={},
        )  # fmt: skip
        writer.finish(manifest, attribution, request.eval_split)
    return open_bundle(destination)


def _write_graph(path: Path, work: Work, method: str) -> Graph:
    """Write the graph with our fields added to its metadata; return the manifest's record of the graph."""
    proto: onnx.ModelProto = ir.to_proto(ir.external_data.load_to_model(work.model.clone()))
    source = work.source
    ranks = {f"{row.block}.{row.linear}": row.rank for row in work.result.layers if row.rank is not None}
    widths = {f"{row.block}.{row.linear}": row.shape for row in work.result.layers if row.shape is not None}
    ours = fields(
        version=version("vitdeploy"), method=method, ranks=ranks, widths=widths, source=source.spec, source_sha256=source.sha256,
        preprocessing=work.preprocessing, labels=work.labels,
    )  # fmt: skip
    write_metadata(proto, {**read_metadata(proto), **ours})
    graph = describe_graph(proto, source.opset, "none: the graph stays as it was given, but for its linears")
    save_model(proto, path)
    return graph
