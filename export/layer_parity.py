"""`vitdeploy parity --layers`: values of the graph on a runtime, marked as an output one at a time, against torch.

Marking all at once would disable fusions of the runtime, and so hide the errors that are searched for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from export.graph.files import save_model
from export.graph.stream_taps import Tap, find_taps, marked
from export.torch_runners import reference_model
from runtime.bench.plan import Target
from runtime.bundle.schema import MODEL, Bundle
from runtime.check.layer_parity import LayerParity, LayerParityRow, bisect_first, is_over, layer_parity_row
from runtime.check.parity import TOLERANCES
from runtime.runners.base import Images
from runtime.runners.ort_options import new_session_options
from runtime.runners.registry import known_traits, traits
from vitnla.common.errors import InputError
from vitnla.model.vit import VisionTransformer

Values = NDArray[np.float32]


def check_layer_parity(
    bundle: Bundle, target: Target, *, threads: int, tolerance: float | None = None, on_probe: Callable[[str], None] = lambda text: None
) -> LayerParity:  # fmt: skip
    """Find the first part of the network whose error is over the tolerance, then measure every part.

    Args:
        bundle: its reference images are run.
        target: a runtime that runs the graph itself, such as ONNX Runtime or OpenVINO.
        threads: CPU threads.
        tolerance: largest relative error of a part; by default that of the precision (`TOLERANCES`).
        on_probe: called with the name of each part before it runs.

    Raises:
        InputError: the runtime runs no graph, the residual stream is not found, or there is no fp32 reference for the bundle.
        MissingDependencyError: the runtime cannot run here.
    """
    if not traits(target.runtime).runs_graph:
        able = ", ".join(name for name, found in known_traits().items() if found.runs_graph)
        raise InputError(
            f"expected a runtime that runs the graph for --layers ({able}), got '{target.label}'",
            "--layers marks values of model.onnx; the values inside a compiled engine or a torch model are out of its reach",
        )
    graph = onnx.load(bundle.model_path)
    by, taps, references = _references(bundle, graph)
    precision = target.precision_on(bundle)
    limit = TOLERANCES[precision] if tolerance is None else tolerance
    images, _ = bundle.reference()
    found: dict[int, LayerParityRow] = {}

    def probe(place: int) -> LayerParityRow:
        if place not in found:
            tap = taps[place]
            on_probe(f"{tap.layer} {tap.part}")
            value = _run(bundle, target, marked(graph, tap), images, threads)
            found[place] = layer_parity_row(tap.layer, tap.part, value, references[place])
        return found[place]

    bisected = bisect_first(len(taps), lambda place: is_over(probe(place), limit))
    probes = len(found)
    rows = tuple(probe(place) for place in range(len(taps)))
    # A norm can take an error away again (a constant on all channels), and bisection does not see what came before such a place.
    first = next((place for place, row in enumerate(rows) if is_over(row, limit)), None)
    return LayerParity(
        bundle=bundle.name, runtime=target.label, precision=precision, reference=by, tolerance=limit,
        layers=rows, first=first, probes=probes if first == bisected else len(rows),
    )  # fmt: skip


def _run(bundle: Bundle, target: Target, graph: onnx.ModelProto, images: Images, threads: int) -> Values:
    """Return the first output, float32, of a graph run in place of the bundle's; a fixed batch is run part by part."""
    batch = bundle.fixed_batch or len(images)
    with tempfile.TemporaryDirectory(prefix="vitdeploy-layers-") as folder:
        save_model(graph, Path(folder) / MODEL)
        session = target.open(replace(bundle, folder=Path(folder)), threads, batch)
        try:
            return np.concatenate([session.run(images[start : start + batch]) for start in range(0, len(images), batch)])
        finally:
            session.close()


def _references(bundle: Bundle, graph: onnx.ModelProto) -> tuple[str, tuple[Tap, ...], list[Values]]:
    """Return the name of the reference, the taps of the graph, and the reference values at them."""
    if bundle.manifest.model is not None:
        model = reference_model(bundle)
        (vit,) = (module for module in model.modules() if isinstance(module, VisionTransformer))
        taps = find_taps(graph, embed_norm=vit.config.embed_norm)
        values = _torch_values(model, vit, bundle.reference()[0])
        if len(taps) != len(values):
            raise InputError(
                f"expected a graph of {len(values)} parts as in the checkpoint, got {len(taps)}", "export the bundle again"
            )
        return "torch fp32", taps, values
    if bundle.manifest.precision != "fp32":
        raise InputError(
            f"bundle '{bundle.name}' was made from an ONNX file and holds no fp32 graph to compare its {bundle.manifest.precision} one with",
            "--layers works on the fp32 bundle of that file",
        )
    taps = find_taps(graph)
    return "graph without optimisation", taps, [_plain(bundle, marked(graph, tap)) for tap in taps]


def _torch_values(model: torch.nn.Module, vit: VisionTransformer, images: Images) -> list[Values]:
    """Return torch's residual stream before the first block and after both parts of each block, then the model's output."""
    stream: list[Values] = []

    def before(_: Any, arguments: tuple[torch.Tensor, ...]) -> None:
        stream.append(arguments[0].numpy().copy())

    def after(_: Any, __: Any, result: torch.Tensor) -> None:
        stream.append(result.numpy().copy())

    hooks = [vit.blocks[0].register_forward_pre_hook(before)]
    for block in vit.blocks:
        hooks += [block.norm2.register_forward_pre_hook(before), block.register_forward_hook(after)]  # type: ignore[union-attr]
    try:
        with torch.inference_mode():
            answer = model.cpu().eval()(torch.from_numpy(images)).numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return [*stream, answer]


def _plain(bundle: Bundle, graph: onnx.ModelProto) -> Values:
    """Return the first output of a graph in ONNX Runtime without optimisations, as the bundle's reference was computed."""
    options = new_session_options()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    images, _ = bundle.reference()
    batch = bundle.fixed_batch or len(images)
    with tempfile.TemporaryDirectory(prefix="vitdeploy-layers-") as folder:
        save_model(graph, Path(folder) / MODEL)
        session = onnxruntime.InferenceSession(Path(folder) / MODEL, options, providers=["CPUExecutionProvider"])
        name = bundle.manifest.input.name
        parts = [session.run(None, {name: images[at : at + batch]})[0] for at in range(0, len(images), batch)]
    return np.concatenate(parts).astype(np.float32)
