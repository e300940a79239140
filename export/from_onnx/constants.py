"""Constants of a graph, including those behind operators that only transpose or convert them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray


def constant(value: ir.Value | None) -> NDArray[Any] | None:
    """Return the array of a constant value (initialiser or Constant, through Identity, Cast and Transpose), else `None`."""
    if value is None:
        return None
    node = value.producer()
    if node is None or node.op_type == "Constant":
        tensor = ir.convenience.get_const_tensor(value)
        return None if tensor is None else tensor.numpy()
    if node.op_type not in ("Identity", "Cast", "Transpose") or (inner := constant(node.inputs[0])) is None:
        return None
    if node.op_type == "Identity":
        return inner
    if node.op_type == "Cast":
        return inner.astype(ir.DataType(node.attributes["to"].as_int()).numpy())
    order = node.attributes.get("perm")
    return np.transpose(inner, None if order is None else tuple(order.as_ints()))


def is_scalar(value: ir.Value | None) -> bool:
    """Return whether a value is a constant with a single element."""
    array = constant(value)
    return array is not None and array.size == 1


def new_constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """Return a new initialiser whose name begins with `name`."""
    taken = set(graph.initializers) | {value.name for node in graph for value in node.outputs} | {v.name for v in graph.inputs}
    unique = next(one for one in (name, *(f"{name}.{number}" for number in range(1, len(taken) + 2))) if one not in taken)
    tensor = ir.tensor(np.ascontiguousarray(array), name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value
