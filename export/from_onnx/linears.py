"""The linears of a graph: MatMul and Gemm with constant weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.from_onnx.constants import constant
from vitnla.common.errors import InputError
from vitnla.linalg.arrays import Matrix
from vitnla.linalg.moments import Affine


@dataclass(frozen=True, eq=False)
class GraphLinear:
    """A linear y = W x + b of a graph.

    Args:
        node: the MatMul or Gemm.
        add: the node that adds the bias: an Add of its own, the Gemm itself, or `None` where there is no bias.
        bias_at: index of the bias among the inputs of `add`.
        map: weight [out, in] and bias [out] (zeros where there is none), float32.
    """

    node: ir.Node
    add: ir.Node | None
    bias_at: int
    map: Affine[Matrix]

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.node.name or str(self.node.outputs[0].name)

    @property
    def x(self) -> ir.Value:
        """Input value."""
        value = self.node.inputs[0]
        assert value is not None  # for the type checker: MatMul and Gemm have two inputs
        return value

    @property
    def y(self) -> ir.Value:
        """Output value, after the bias."""
        return (self.add or self.node).outputs[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) features."""
        return self.map.shape

    @property
    def stored_transposed(self) -> bool:
        """Whether the node's weight is stored as [out, in]."""
        return self.node.op_type == "Gemm" and _number(self.node, "transB", 0) != 0


def find_linears(model: ir.Model) -> list[GraphLinear]:
    """Return the linears of the graph, subgraphs excluded, in node order; a Gemm that scales or transposes its input is none.

    Raises:
        InputError: a linear is not float32, or not finite; names it.
    """
    found = []
    for node in model.graph:
        if (weight := _weight(node)) is None:
            continue
        if weight.dtype != np.float32:
            hint = "give the model in float32; the bundle can be made smaller afterwards"
            raise InputError(f"linear '{node.name}': expected float32 weights, got {weight.dtype}", hint)
        add, at, bias = _bias(node, len(weight))
        if not (np.isfinite(weight).all() and (bias is None or np.isfinite(bias).all())):
            hint = "check the model it was exported from"
            raise InputError(f"linear '{node.name}': expected finite weights, got infinity or NaN", hint)
        found.append(GraphLinear(node, add, at, Affine(weight, np.zeros(len(weight), np.float32) if bias is None else bias)))
    return found


def after_weights(linears: list[GraphLinear]) -> list[GraphLinear]:
    """Return the linears whose input depends on a convolution or another linear: all but a patch embedding by a linear."""
    weighted: set[ir.Value] = set()
    own = {linear.node for linear in linears}
    graph = linears[0].node.graph if linears else None
    for node in graph or ():
        if node.op_type == "Conv" or node in own or any(value in weighted for value in node.inputs if value is not None):
            weighted.update(node.outputs)
    return [linear for linear in linears if linear.x in weighted]


def _weight(node: ir.Node) -> Matrix | None:
    """Return the weight [out, in], or `None` if the node is not a linear."""
    if node.op_type == "MatMul":
        found = constant(node.inputs[1])
        return found.T if found is not None and found.ndim == 2 and constant(node.inputs[0]) is None else None
    plain = (
        node.op_type == "Gemm" and not _number(node, "transA", 0) and _number(node, "alpha", 1) == _number(node, "beta", 1) == 1
    )
    found = constant(node.inputs[1]) if plain else None
    if found is None or constant(node.inputs[0]) is not None:
        return None
    return found if _number(node, "transB", 0) else found.T


def _bias(node: ir.Node, rows: int) -> tuple[ir.Node | None, int, Matrix | None]:
    if node.op_type == "Gemm":
        if len(node.inputs) < 3 or node.inputs[2] is None:
            return None, 2, None
        found = _row(node.inputs[2], rows)
        return (node, 2, found) if found is not None else (None, 2, None)
    uses = list(node.outputs[0].uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and not node.outputs[0].is_graph_output():
        other = 1 - uses[0].idx
        if (found := _row(uses[0].node.inputs[other], rows)) is not None:
            return uses[0].node, other, found
    return None, 1, None


def _row(value: ir.Value | None, rows: int) -> Matrix | None:
    found = constant(value)
    if found is None or found.size != rows or (found.ndim and found.shape[-1] != rows):
        return None
    return found.reshape(rows)


def _number(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else float(attribute.value)
