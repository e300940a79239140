"""Tracing of a `VisionTransformer` to an ONNX graph, by `torch.export`."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch

from vitnla.common.errors import InputError
from vitnla.model.vit import VisionTransformer

INPUT, OUTPUT, BATCH = "images", "logits", "batch"
DEFAULT_OPSET, OPSETS = 20, range(18, 24)
"""Default and supported opsets: torch's exporter writes 18 to 23. From 23 on attention is one `Attention` node, which TensorRT
for RTX refuses in FP32; below, it is MatMul, Softmax and MatMul, which every runtime knows."""


def check_opset(opset: int) -> None:
    """Check that the exporter can write an opset.

    Raises:
        InputError: names the range.
    """
    if opset not in OPSETS:
        hint = f"leave --opset out for the default, {DEFAULT_OPSET}"
        raise InputError(f"expected an opset from {OPSETS[0]} to {OPSETS[-1]}, got {opset}", hint)


def trace(model: VisionTransformer, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Trace a model with a dynamic batch: `images` float32 [batch, C, H, W] -> `logits` float32 [batch, classes].

    Raises:
        InputError: the opset is out of range.
    """
    check_opset(opset)
    config = model.config
    # Two images, because torch.export specialises on a batch of one.
    example = torch.zeros(2, config.channels, config.image_size, config.image_size)
    with _quiet():
        program = torch.onnx.export(
            model.cpu().eval(), (example,), dynamo=True, opset_version=opset, input_names=[INPUT], output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim(BATCH)},), external_data=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return _without_traces(program.model_proto)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop torch's notes about the Python source: they hold paths of the machine that exported."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's warnings on every export (no torchvision, deprecations of its own): no user can act on them."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
