"""Preprocessing inside the graph: uint8 pixels [batch, H, W, C] -> logits or probabilities.

Applied to a finished fp32 graph. Its operators are Cast, Transpose, up to two MatMul (each with a Clip where the filter
overshoots), Mul, Add and, for probabilities, Softmax. Their names begin with `preprocessing/`, so that a later conversion to
another precision can skip them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph.trace import BATCH, INPUT, OUTPUT
from runtime.bundle.schema import TensorSpec
from vitnla.common.errors import InputError, unknown_name
from vitnla.data.pixel_map import PixelMap, pixel_map
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.config import ViTConfig

OutputKind = Literal["logits", "probabilities"]
PREFIX = "preprocessing/"
_SMALLEST, _LARGEST = 1, 8192


@dataclass(frozen=True)
class Embedding:
    """Options of preprocessing inside the graph.

    Args:
        size: (height, width) of the input pixels; `None` is the model's own, so nothing is resized.
        output: kind of the graph's output.
    """

    size: tuple[int, int] | None = None
    output: OutputKind = "logits"

    def pixel_map(self, preprocessing: Preprocessing) -> PixelMap:
        """Return the constant arrays by which the graph preprocesses pixels.

        Raises:
            InputError: the graph would have to crop.
        """
        side = preprocessing.image_size
        if self.size not in (None, (side, side)) and (preprocessing.crops or preprocessing.fit == "shortest"):
            hint = f"leave --input-size out, and give the graph pixels that are cut to {side} x {side}"
            raise InputError("this model's preprocessing crops, and a graph can only stretch pixels to its size", hint)
        return pixel_map(preprocessing, self.size or (side, side))


def parse_embedding(embed: bool, input_size: str | None, output_kind: str) -> Embedding | None:
    """Parse the preprocessing options of `vitdeploy export`; return `None` if the graph is not to preprocess.

    Raises:
        InputError: an option is malformed, or given without `--embed-preprocessing`.
    """
    kind = next((kind for kind in get_args(OutputKind) if kind == output_kind), None)
    if kind is None:
        raise unknown_name("output kind", output_kind, get_args(OutputKind))
    if not embed:
        if input_size is not None or kind != "logits":
            given = "--input-size" if input_size is not None else "--output-kind"
            raise InputError(f"{given} requires --embed-preprocessing", "add --embed-preprocessing")
        return None
    return Embedding(None if input_size is None else _parse_size(input_size), kind)


def tensor_specs(config: ViTConfig, embedding: Embedding | None) -> tuple[TensorSpec, TensorSpec]:
    """Return name, dtype and shape of the graph's input and output."""
    side = config.image_size
    shape: tuple[int | str, ...] = (BATCH, config.channels, side, side)
    dtype, answer = "float32", OUTPUT
    if embedding is not None:
        dtype, answer = "uint8", embedding.output
        shape = (BATCH, *(embedding.size or (side, side)), config.channels)
    return (
        TensorSpec(name=INPUT, dtype=dtype, shape=shape),
        TensorSpec(name=answer, dtype="float32", shape=(BATCH, config.classes)),
    )


def embed(model: onnx.ModelProto, pixels: PixelMap, specs: tuple[TensorSpec, TensorSpec]) -> onnx.ModelProto:
    """Return a copy of a graph, float32 [batch, C, S, S] -> logits, with the input and output of `specs`."""
    embedded = onnx.ModelProto()
    embedded.CopyFrom(model)
    graph = embedded.graph
    given, answer = specs
    front = _front(graph, given.name, pixels)
    for node in graph.node:
        node.input[:] = [front[-1].output[0] if name == given.name else name for name in node.input]
    nodes = [*front, *graph.node]
    if answer.name != OUTPUT:
        nodes.append(helper.make_node("Softmax", [OUTPUT], [answer.name], f"{PREFIX}Softmax", axis=-1))
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info(given.name, TensorProto.UINT8, given.shape))
    graph.output.append(helper.make_tensor_value_info(answer.name, TensorProto.FLOAT, answer.shape))
    return embedded


def _front(graph: onnx.GraphProto, source: str, pixels: PixelMap) -> list[onnx.NodeProto]:
    """Return the nodes from uint8 pixels to the model's input; their constants are added to `graph`."""
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{PREFIX}{kind}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    constants = dict(pixels.products) | {"scale": pixels.scale, "shift": pixels.shift}
    if pixels.clips:
        constants |= {"darkest": np.zeros((), np.float32), "brightest": np.full((), 255, np.float32)}
    graph.initializer.extend(numpy_helper.from_array(array, f"{PREFIX}{name}") for name, array in constants.items())
    # The cast comes first because TensorRT wants one right behind a uint8 input.
    value = add("Transpose", [add("Cast", [source], to=TensorProto.FLOAT)], perm=[0, 3, 1, 2])
    for name, _ in pixels.products:
        matrix = f"{PREFIX}{name}"
        value = add("MatMul", [matrix, value] if name == "rows" else [value, matrix])
        if pixels.clips:
            value = add("Clip", [value, f"{PREFIX}darkest", f"{PREFIX}brightest"])
    scaled = add("Mul", [value, f"{PREFIX}scale"])
    add("Add", [scaled, f"{PREFIX}shift"])
    return nodes


def _parse_size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(word) for word in text.lower().split("x"))
    except ValueError as error:
        raise InputError(f"--input-size: expected HEIGHTxWIDTH, got '{text}'", "such as --input-size 480x640") from error
    if not all(_SMALLEST <= side <= _LARGEST for side in (height, width)):
        raise InputError(f"--input-size: expected sides from {_SMALLEST} to {_LARGEST}, got '{text}'", "such as 480x640")
    return height, width
