"""Rewriting of a graph's linears. Nodes keep their names and output names, so that the rest of the graph is unchanged."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from export.from_onnx.blocks import GraphMlp
from export.from_onnx.constants import constant, new_constant
from export.from_onnx.linears import GraphLinear
from vitnla.linalg.arrays import Matrix
from vitnla.linalg.mlp_curve import MlpFit
from vitnla.linalg.moments import LowRankAffine


def make_low_rank(model: ir.Model, linear: GraphLinear, new: LowRankAffine[Matrix]) -> None:
    """Insert a MatMul by V before the linear's node, which then multiplies by U; a new bias replaces the old one."""
    graph, node = model.graph, linear.node
    factor = new_constant(graph, f"{linear.name}.V", new.factors.V.T)
    first = ir.node("MatMul", [linear.x, factor], name=f"{linear.name}.V")
    first.outputs[0].name = f"{node.outputs[0].name}.V"
    first.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, first)
    node.replace_input_with(0, first.outputs[0])
    _set_weight(graph, linear, new.factors.U, "U")
    if not np.array_equal(new.bias, linear.map.bias):
        _set_bias(graph, linear, new.bias)


def make_narrow(model: ir.Model, mlp: GraphMlp, fit: MlpFit[Matrix]) -> None:
    """Keep the hidden units of an MLP that `fit` selects, and replace its second linear by the map fitted to them."""
    graph = model.graph
    _set_weight(graph, mlp.fc1, fit.first.weight, "kept")
    if mlp.fc1.add is not None:
        _set_bias(graph, mlp.fc1, fit.first.bias)
    _set_weight(graph, mlp.fc2, fit.second.weight.astype(np.float32), "fitted")
    _set_bias(graph, mlp.fc2, fit.second.bias.astype(np.float32))
    for node in mlp.reshapes:
        shape = constant(node.inputs[1])
        assert shape is not None  # for the type checker: only such reshapes are in the pattern
        narrow = np.append(shape[:-1], len(fit.first.bias)).astype(np.int64)
        node.replace_input_with(1, new_constant(graph, f"{node.name or mlp.fc1.name}.shape", narrow))
    for value in {mlp.fc1.node.outputs[0], *mlp.inner}:
        value.shape = None  # as the exporter noted it for the old width


def drop_unused(model: ir.Model, before: frozenset[str]) -> None:
    """Remove initialisers, and nodes on constants only, that had a reader `before` and have none now."""
    graph = model.graph
    while True:
        dead = [
            node for node in graph
            if node.op_type in ("Constant", "Identity", "Cast", "Transpose") and str(node.outputs[0].name) in before
            and not node.outputs[0].uses() and not node.outputs[0].is_graph_output()
        ]  # fmt: skip
        if not dead:
            break
        graph.remove(dead, safe=True)
    for name, value in list(graph.initializers.items()):
        if name in before and not value.uses() and not value.is_graph_output() and not value.is_graph_input():
            del graph.initializers[name]


def values_in_use(model: ir.Model) -> frozenset[str]:
    """Return the names of all values that have a reader."""
    values = [*model.graph.initializers.values(), *(value for node in model.graph for value in node.outputs)]
    return frozenset(str(value.name) for value in values if value.uses())


def _set_weight(graph: ir.Graph, linear: GraphLinear, weight: Matrix, what: str) -> None:
    """Replace the node's weight by another one [out, in], stored in the node's own layout."""
    stored = weight if linear.stored_transposed else weight.T
    linear.node.replace_input_with(1, new_constant(graph, f"{linear.name}.{what}", stored))


def _set_bias(graph: ir.Graph, linear: GraphLinear, bias: Matrix) -> None:
    value = new_constant(graph, f"{linear.name}.bias", bias)
    if linear.add is not None:
        linear.add.replace_input_with(linear.bias_at, value)
        return
    old = linear.node.outputs[0]
    added = ir.node("Add", [old, value], name=f"{linear.name}.bias")
    for use in [use for use in old.uses() if use.node is not added]:
        use.node.replace_input_with(use.idx, added.outputs[0])
    added.outputs[0].name = f"{old.name}.biased"
    added.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_after(linear.node, added)
