"""Points of a graph where the residual stream can be read: the inputs of its norms, which survive rewriting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from export.graph.inspect import value_types
from vitnla.common.errors import InputError

_PARTS = ("Gather", "Slice", "Split", "Squeeze")
"""Operators that select tokens from the stream; the last norm may apply to the pooled tokens only."""
_NORMS = ("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization")


@dataclass(frozen=True)
class Tap:
    """A value of a graph, and the part of the network that was added to it last."""

    layer: str
    part: str
    value: str


def find_taps(model: onnx.ModelProto, *, embed_norm: bool = False) -> tuple[Tap, ...]:
    """Return the taps after the embedding and after the attention and the MLP of every block, then the output.

    The norms of pre-norm blocks read the stream in this order, independent of value names and precision.

    Args:
        model: a graph of a pre-norm transformer, nodes in topological order.
        embed_norm: whether a separate norm precedes the first block; it is skipped.

    Raises:
        InputError: the graph has too few norms that can be recognised.
    """
    whole = {name: node.input[0] for node in model.graph.node if node.op_type in _PARTS for name in node.output}
    streams = list(dict.fromkeys(_whole(value, whole) for value in _norm_inputs(model)))[1 if embed_norm else 0 :]
    if len(streams) < 2:
        raise InputError(
            f"expected a graph with at least two layer norms to read the residual stream from, got {len(streams)}",
            "--layers knows LayerNormalization, RMSNormalization, and a square with ReduceMean; leave it out for the logits alone",
        )
    if len(streams) % 2 == 0 and (last := _sum_with(model, streams[-1])) is not None:
        streams.append(last)  # without a final norm on the tokens
    taps = [Tap("input", "embedding", streams[0])]
    for place, value in enumerate(streams[1:]):
        taps.append(Tap(f"blocks.{place // 2}", "mlp" if place % 2 else "attention", value))
    return (*taps, Tap("output", "head", model.graph.output[0].name))


def marked(model: onnx.ModelProto, tap: Tap) -> onnx.ModelProto:
    """Return a copy with the tap as first output; the graph's own output stays, so that a runtime sees the whole network."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    (own,) = made.graph.output
    if tap.value != own.name:
        kept = onnx.ValueInfoProto()
        kept.CopyFrom(own)
        del made.graph.output[:]
        made.graph.output.extend([onnx.ValueInfoProto(name=tap.value), kept])
        _declare(made, tap.value)
    return made


def _norm_inputs(model: onnx.ModelProto) -> Iterable[str]:
    averaged = {node.input[0] for node in model.graph.node if node.op_type == "ReduceMean"}
    for node in model.graph.node:
        squares = node.op_type == "Pow" or (node.op_type == "Mul" and node.input[0] == node.input[1])
        if node.op_type in _NORMS or (squares and node.output[0] in averaged):  # the latter is an RMSNorm written out
            yield node.input[0]


def _whole(value: str, whole: Mapping[str, str]) -> str:
    while value in whole:
        value = whole[value]
    return value


def _sum_with(model: onnx.ModelProto, value: str) -> str | None:
    return next((node.output[0] for node in model.graph.node if node.op_type == "Add" and value in node.input), None)


def _declare(model: onnx.ModelProto, value: str) -> None:
    """Set the element type of the new output, which ONNX requires; the shape may stay unknown."""
    known = {one.name: one for one in model.graph.value_info}
    if value in known:
        model.graph.output[0].CopyFrom(known[value])
        return
    model.graph.output[0].type.tensor_type.elem_type = value_types(model).get(value, onnx.TensorProto.FLOAT)
