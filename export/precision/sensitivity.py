"""INT8 sensitivity of linears, measured: one linear at a time is restored to float, and the logits are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx

from runtime.check.logits import mean_divergence
from runtime.runners.base import Logits

SHARE_OF_LOSS, SHARE_OF_MACS = 0.05, 0.05
"""Smallest share of the loss of a sensitive linear, and largest share of the MACs of all linears kept in float."""


@dataclass(frozen=True)
class Sensitivity:
    """Mean KL divergence of the INT8 logits from the float graph's, in total and with each linear restored to float."""

    divergence: float
    without: Mapping[str, float]
    """Node name of a linear -> divergence with that linear alone in float."""


def measure_sensitivity(
    quantized: onnx.ModelProto, original: onnx.ModelProto, linears: list[str], run: Callable[[onnx.ModelProto], Logits],
    reference: Logits, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sensitivity:  # fmt: skip
    """Measure the divergence of the quantised graph, and of it with each linear restored, from the float graph.

    Args:
        quantized: the graph with Q/DQ.
        original: the float graph that it was made from.
        linears: names of the quantised nodes.
        run: logits [N, classes] of a graph on the calibration images.
        reference: those of `original`.
        on_progress: called with the number of linears done.
    """
    without = {}
    total = mean_divergence(reference, run(quantized))
    for done, name in enumerate(linears, 1):
        without[name] = mean_divergence(reference, run(restore(quantized, original, {name})))
        on_progress(done, len(linears))
    return Sensitivity(total, without)


def sensitive_linears(sensitivity: Sensitivity, macs: Mapping[str, int]) -> tuple[str, ...]:
    """Return the linears to keep in float, by decreasing reduction of the divergence per MAC.

    Args:
        sensitivity: as measured.
        macs: of every quantised linear, by the node's name.
    """
    relief = {name: sensitivity.divergence - remaining for name, remaining in sensitivity.without.items()}
    budget = SHARE_OF_MACS * sum(macs.values())
    kept: list[str] = []
    for name in sorted(relief, key=lambda name: -relief[name] / macs[name]):
        if relief[name] > SHARE_OF_LOSS * sensitivity.divergence and macs[name] <= budget:
            kept.append(name)
            budget -= macs[name]
    return tuple(kept)


def restore(quantized: onnx.ModelProto, original: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """Return a copy of the quantised graph in which the nodes named read the float graph's values again."""
    copy = onnx.ModelProto()
    copy.CopyFrom(quantized)
    before = {node.name: node for node in original.graph.node if node.name in names}
    weights = {tensor.name: tensor for tensor in original.graph.initializer}
    for node in copy.graph.node:
        if node.name in before:
            # The bias stays as it is: its int32 steps are finer than the product's own rounding, and its name may be taken.
            node.input[0] = before[node.name].input[0]
            weight = weights[before[node.name].input[1]]
            node.input[1] = f"{weight.name}_float"
            copy.graph.initializer.add().CopyFrom(weight)
            copy.graph.initializer[-1].name = node.input[1]
    return without_unread(copy)


def without_unread(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove, in place, the nodes and weights whose values have no reader."""
    graph = model.graph
    read = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):  # nodes are in topological order, so readers come after what they read
        if read.intersection(node.output):
            read.update(node.input)
            kept.append(node)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in graph.initializer if tensor.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    return model
