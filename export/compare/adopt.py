"""Bundles of ONNX files that other tools exported, to be run and compared; the file's bytes are not changed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from export.bundle.loss_attribution import LossAttribution, Predictions, Stage
from export.bundle.steps import REFERENCE_IMAGES, counter, evaluation_split, evenly_spaced
from export.bundle.writer import describe_graph, new_bundle, tool_versions
from export.from_onnx.session import GraphSession
from export.from_onnx.source import PREFIX, OnnxSource, read_graph
from export.graph.parity import BATCHES, compare, torch_logits
from runtime.bundle.schema import MODEL, Bundle, Manifest, Precision, TensorSpec, open_bundle
from runtime.check.parity import TOLERANCES
from vitnla.common.errors import InputError, VerdictError
from vitnla.data.dataset import Dataset
from vitnla.methods import METHODS
from vitnla.methods.none.config import NONE
from vitnla.model.cost import encoder_macs, encoder_parameters
from vitnla.sources.source_logits import source_logits
from vitnla.sources.source_model import SourceModel

_TOOLS = ("torch", "onnx", "onnxruntime", "numpy")
SAME = 1e-2
"""Largest difference of logits, relative to the largest logit, of a float graph of the source: optimum's level O3 approximates GELU by
tanh, which gives 2e-3 on DINOv2 ViT-S/14."""
_DYNAMIC = frozenset({"ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"})
_STATIC = frozenset({"DequantizeLinear", "QAttention", "QGemm", "QLinearConv", "QLinearMatMul", "QuantizeLinear"})


@dataclass(frozen=True)
class Adoption:
    """A request for a bundle of another tool's file.

    Args:
        file: ONNX, of the weights of the source.
        name: of the bundle.
        destination: its folder; an existing one is replaced.
        command: the command line, for the manifest.
        eval_images: how many test images accuracy is measured on; `None` is all.
    """

    file: Path
    name: str
    destination: Path
    command: str
    eval_images: int | None = None


def adopt_graph(wanted: Adoption, source: SourceModel, data: Dataset, on_step: Callable[[str], None]) -> Bundle:
    """Write a bundle of a graph that was exported from `source`, with the source's preprocessing, labels and reference.

    `parity` and `precision_error` are both of the file against torch in fp32. They are reported and not enforced, since other tools
    have other tolerances and accuracy decides; but a float graph that differs by more than `SAME` has other weights.

    Raises:
        InputError: the file is missing or damaged, takes or gives something else than the source, or cannot be run.
        VerdictError: its logits are not finite, or not those of the source.
    """
    if not wanted.file.is_file():
        raise InputError(f"no file at {wanted.file}", "expected an ONNX file that another tool exported")
    on_step(f"reading {wanted.file}")
    graph = read_graph(f"{PREFIX}{wanted.file}")
    _require_same_images(graph, source)
    split = evaluation_split(data, source.labels, "test", wanted.eval_images)
    precision, images = precision_of(graph), source.preprocessing(evenly_spaced(split.images, REFERENCE_IMAGES))
    with new_bundle(wanted.destination, replace=True) as writer:
        _copy(graph, writer.folder)
        session = GraphSession(writer.model_path, graph.batch)
        _require_same_classes(session, images, source)
        reference = partial(torch_logits, source.model)
        parity = compare(session, reference, images, _batches(graph), TOLERANCES[precision])
        if not np.isfinite(parity.max_rel):
            raise VerdictError(f"{wanted.file}: the logits hold NaN or infinity", "export it again")
        if not parity.met:
            on_step(
                f"logits of {wanted.name} differ from torch's by {parity.max_rel:.1e} of the largest, above {parity.tolerance:.0e}"
            )
        if not precision.startswith("int8") and parity.max_rel > max(SAME, parity.tolerance):
            raise VerdictError(
                f"{wanted.file}: expected the logits of {source.spec} within {SAME:.0e} of the largest, got {parity.max_rel:.1e}",
                "export it from the same weights",
            )
        writer.write_reference(images, reference(images))
        dense = source_logits(source, split, counter("accuracy of the dense source", on_step))
        attribution = LossAttribution(source.preprocessing, split, Predictions("dense, torch fp32", dense))
        stage: Stage = "runtime" if precision == "fp32" else "precision"
        label = f"{wanted.name}, ONNX Runtime {precision}"
        attribution.record(stage, label, session, counter(f"accuracy of {wanted.name}", on_step))
        config = source.model.config
        none = METHODS[NONE]
        batch = graph.batch or "batch"
        manifest = Manifest(
            name=wanted.name, created=writer.created, command=wanted.command,
            source=source.spec, source_sha256=source.sha256, data=data.name, method=NONE, method_config={},
            model=config.model_dump(mode="json"), layers=none.apply(source.model, None, none.config()).layers,
            macs=encoder_macs(config, config), parameters=encoder_parameters(config, config), precision=precision,
            input=TensorSpec(name=graph.input, dtype="float32", shape=(batch, *images.shape[1:])),
            output=TensorSpec(name=graph.output, dtype="float32", shape=(batch, config.classes)),
            preprocessing=source.preprocessing.model_dump(mode="json"), labels=source.labels,
            accuracy=attribution.accuracy("test"), parity=parity,
            precision_error=None if precision == "fp32" else parity.max_rel,
            graph=describe_graph(ir.to_proto(graph.model), graph.opset, "none: the file is another tool's, as it stands"),
            tools=tool_versions(_TOOLS), files={},
        )  # fmt: skip
        writer.finish(manifest, attribution, "test")
    return open_bundle(wanted.destination)


def precision_of(graph: OnnxSource) -> Precision:
    """Return the precision of a graph, from its operators and weights."""
    operators = {node.op_type for node in graph.model.graph.all_nodes()}
    if operators & _DYNAMIC:
        return "int8-dynamic"
    if operators & _STATIC:
        return "int8"
    types = {value.dtype for value in graph.model.graph.initializers.values()}
    if ir.DataType.FLOAT16 in types:
        return "fp16"
    return "bf16" if ir.DataType.BFLOAT16 in types else "fp32"


def _batches(graph: OnnxSource) -> tuple[int, ...]:
    return BATCHES if graph.batch is None else (graph.batch,)


def _copy(graph: OnnxSource, folder: Path) -> None:
    """Copy the file under a bundle's name for it, and its external weights under the names in its references."""
    file, *weights = graph.files
    shutil.copyfile(file, folder / MODEL)
    for one in weights:
        destination = folder / one.relative_to(file.parent)
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(one, destination)


def _require_same_images(graph: OnnxSource, source: SourceModel) -> None:
    channels, size = source.preprocessing.channels, source.preprocessing.image_size
    taken = (graph.channels or channels, graph.size or size)
    if taken != (channels, size):
        raise InputError(
            f"{graph.spec}: expected {channels} x {size}² images as {source.spec} takes, got {taken[0]} x {taken[1]}²",
            "export it from the same model",
        )


def _require_same_classes(session: GraphSession, images: np.ndarray, source: SourceModel) -> None:
    found = session(images).shape
    if found != (len(images), source.model.config.classes):
        raise InputError(
            f"expected logits [{len(images)}, {source.model.config.classes}] as {source.spec} gives, got {list(found)}",
            "export it from the same model",
        )
