"""Pipeline of `vitdeploy export --model onnx:FILE`, from the command's request to the written bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from export.bundle.steps import default_name, evaluation_split
from export.from_onnx.calibrate import EncoderLinear, collect, encoder_linears
from export.from_onnx.decompose import Encoder, decompose
from export.from_onnx.describe import find_labels, find_preprocessing
from export.from_onnx.linears import GraphLinear
from export.from_onnx.request import OnnxRequest
from export.from_onnx.sensitivity import sensitivities
from export.from_onnx.session import GraphSession
from export.from_onnx.source import OnnxSource, read_source
from export.from_onnx.write import Work, write_bundle
from export.precision.request import Lowering
from runtime.bundle.schema import Bundle
from vitnla.common.errors import InputError
from vitnla.common.files import check_free
from vitnla.data.dataset import Split
from vitnla.data.load import load_data
from vitnla.data.preprocessing import Preprocessing
from vitnla.linalg.arrays import Float64
from vitnla.linalg.moments import Moments
from vitnla.methods import METHODS, Method
from vitnla.methods.registry import make_config

PROBE_IMAGES = 32
"""Number of calibration images for the sensitivities of the linears' outputs."""


def export_onnx(request: OnnxRequest, on_step: Callable[[str], None]) -> Bundle:
    """Read the graph, calibrate, decompose the graph itself, and write a bundle.

    Raises:
        VitDeployError: something given is not usable, or parity was not met; nothing is left behind.
    """
    method = _method(request.method)
    config = make_config(method, request.settings)
    destination = request.output or Path("artifacts") / default_name(request.model, request.method, config, Lowering())
    check_free(destination, replace=request.force)
    on_step(f"reading {request.model}")
    source = read_source(request.model)
    preprocessing = find_preprocessing(source, request.given)
    image = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    classes = _classes(source, image)
    on_step(f"loading data {request.data}")
    data = load_data(request.data, request.class_map)
    labels = find_labels(source, request.given, data, classes)
    split = evaluation_split(data, labels, request.eval_split, request.eval_images)
    model = source.model.clone()
    linears = encoder_linears(source, model, image)
    moments: dict[GraphLinear, Moments[Float64]] = {}
    if method.needs_statistics(config):
        seen = data.split("calibration")
        seen = seen.head(request.calibration_images)
        moments = _moments(source, linears, seen, preprocessing, weigh=method.needs_sensitivity(config), on_step=on_step)
    on_step(f"decomposing by {request.method}")
    result = decompose(Encoder.of(model, linears), request.method, moments, config)
    work = Work(source, model, result, preprocessing, labels, image)
    return write_bundle(work, request, config, (data.name, split), destination, on_step)


def _method(name: str) -> Method[Any]:
    method = METHODS[name]
    if not method.works_on_graphs:
        able = ", ".join(known for known in METHODS if METHODS[known].works_on_graphs)
        hint = "convert the model it was exported from (timm:, hf:, a checkpoint) for the others; see vitdeploy methods"
        raise InputError(f"method '{name}' does not work on onnx:FILE: {able} do", hint)
    return method


def _classes(source: OnnxSource, image: tuple[int, int, int]) -> int:
    """Return the graph's number of logits for an image [C, H, W]."""
    batch = source.batch or 1
    found = GraphSession(source.model, source.batch).run(np.zeros((batch, *image), np.float32))[0]
    if found.ndim != 2 or len(found) != batch or found.dtype != np.float32:
        hint = "expected a classifier; cut other outputs off with onnx.utils.extract_model"
        raise InputError(
            f"{source.spec}: expected float32 logits [B, classes] as output '{source.output}', got {found.dtype} {list(found.shape)}",
            hint,
        )
    return int(found.shape[1])


def _moments(
    source: OnnxSource, linears: Sequence[EncoderLinear], split: Split, preprocessing: Preprocessing, *, weigh: bool,
    on_step: Callable[[str], None],
) -> dict[GraphLinear, Moments[Float64]]:  # fmt: skip
    """Return the moments of each linear's input, with output sensitivities if the method allocates a budget by them."""
    moments = collect(
        source, linears, split.images, preprocessing, lambda done, total: on_step(f"calibrating on {done} of {total} images")
    )
    seen = {one.linear: moments[str(one.linear.x.name)] for one in linears}
    if not weigh:
        return seen
    whole = (
        min(PROBE_IMAGES, len(split))
        if source.batch is None
        else source.batch * max(1, min(PROBE_IMAGES, len(split)) // source.batch)
    )
    images = preprocessing(split.images[:whole])
    weights = sensitivities(source, linears, moments, images, lambda done, total: on_step(f"weighing {done} of {total} linears"))
    return {linear: replace(found, sensitivity=weight) for (linear, found), weight in zip(seen.items(), weights, strict=True)}
