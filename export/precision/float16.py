"""Conversion of an fp32 graph to a 16-bit format, node by node, with casts only where the two formats meet."""

from __future__ import annotations

import copy
from collections.abc import Iterator, MutableSequence, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph.inspect import value_types
from vitnla.common.errors import VerdictError


@dataclass(frozen=True)
class Format:
    """A 16-bit format.

    Args:
        name: as users call it.
        kind: its number in ONNX.
        onnx_type: its name in the types of ONNX operators.
        largest: the largest finite number.
    """

    name: str
    kind: int
    onnx_type: str
    largest: float


def lower(model: onnx.ModelProto, target: Format, kept: Set[int]) -> onnx.ModelProto:
    """Return a copy of a graph with its float32 values in the target format; graph inputs and outputs stay float32.

    Args:
        model: float32, its nodes in topological order.
        target: the format.
        kept: indices of the nodes that stay in float32, with the subgraphs inside them.

    Raises:
        VerdictError: the type of a value cannot be inferred.
    """
    return _Conversion(model, target, kept).run()


@dataclass
class _Conversion:
    model: onnx.ModelProto
    target: Format
    kept: Set[int]
    low: set[str] = field(default_factory=set)
    """Names of values in the target format."""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    casts: dict[tuple[str, int], str] = field(default_factory=dict)
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)
    lowered_weights: dict[str, onnx.TensorProto] = field(default_factory=dict)
    in_fp32: set[str] = field(default_factory=set)
    """Names of weights that at least one node reads in float32."""

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        self.types = value_types(self.model)
        self.weights = {one.name: one for one in graph.initializer}
        self.opset = next(one.version for one in self.model.opset_import if one.domain in ("", "ai.onnx"))
        for index, node in enumerate(graph.node):
            self._convert(copy.deepcopy(node), index in self.kept)
        for value in graph.output:
            self._restore(value.name)
        return self._assemble()

    def _convert(self, node: onnx.NodeProto, kept: bool) -> None:
        """Add a node, after the casts that it needs."""
        schema = onnx.defs.get_schema(node.op_type, self.opset, node.domain)
        parameters = set() if kept else self._parameters(node, schema)
        for place, name in enumerate(node.input):
            if self._type(name) == TensorProto.FLOAT:
                formal = _formal(schema.inputs, place)
                node.input[place] = self._as_target(name) if formal in parameters else self._as_fp32(name)
        for names in _names_in_subgraphs(node):
            names[:] = [self._as_fp32(name) for name in names]
        self.nodes.append(node)
        for place, name in enumerate(node.output):
            if _formal(schema.outputs, place) in parameters and self._type(name) == TensorProto.FLOAT:
                self.low.add(name)

    def _parameters(self, node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> set[str]:
        """Return the operator's type parameters that are float32 here; none if ONNX does not define it for the target format."""
        allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        floats = (place for place, name in enumerate(node.input) if self._type(name) == TensorProto.FLOAT)
        found = {formal for place in floats if (formal := _formal(schema.inputs, place)) in allowed}
        return found if node.op_type != "Cast" and all(self.target.onnx_type in allowed[one] for one in found) else set()

    def _type(self, name: str) -> int | None:
        if name and name not in self.types:
            raise VerdictError(f"the element type of value '{name}' cannot be inferred", "report this as a bug, with the command")
        return self.types.get(name)

    def _as_target(self, name: str) -> str:
        """Return the name of a float32 value in the target format, adding a cast or a converted weight if needed."""
        if name in self.low:
            return name
        if name in self.weights:
            low = f"{name}_{self.target.name}"
            if name not in self.lowered_weights:
                self.lowered_weights[name] = _rounded_weight(self.weights[name], self.target, low)
            return low
        return self._cast(name, self.target.kind, self.target.name)

    def _as_fp32(self, name: str) -> str:
        """Return the name of a value in float32, adding a cast if needed."""
        if name in self.weights:
            self.in_fp32.add(name)
        return self._cast(name, TensorProto.FLOAT, "fp32") if name in self.low else name

    def _cast(self, name: str, kind: int, suffix: str) -> str:
        key = (name, kind)
        if key not in self.casts:
            self.casts[key] = f"{name}_{suffix}"
            self.nodes.append(helper.make_node("Cast", [name], [self.casts[key]], name=f"cast_{self.casts[key]}", to=kind))
        return self.casts[key]

    def _restore(self, name: str) -> None:
        """Cast a graph output back to float32 under its own name."""
        if name not in self.low:
            return
        renamed = f"{name}_{self.target.name}"
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [renamed if one == name else one for one in names]
        self.nodes.append(helper.make_node("Cast", [renamed], [name], name=f"cast_{name}", to=TensorProto.FLOAT))

    def _assemble(self) -> onnx.ModelProto:
        graph = self.model.graph
        made = onnx.ModelProto(ir_version=self.model.ir_version, opset_import=self.model.opset_import)
        made.metadata_props.extend(self.model.metadata_props)
        made.graph.name = graph.name
        made.graph.input.extend(graph.input)
        made.graph.output.extend(graph.output)
        made.graph.node.extend(self.nodes)
        unchanged = (one for name, one in self.weights.items() if name not in self.lowered_weights or name in self.in_fp32)
        made.graph.initializer.extend([*unchanged, *self.lowered_weights.values()])
        return made


def _formal(parameters: Sequence[onnx.defs.OpSchema.FormalParameter], place: int) -> str:
    """Return the type, or type parameter, of an operator's input or output; the last one may be variadic."""
    return parameters[min(place, len(parameters) - 1)].type_str


def _rounded_weight(tensor: onnx.TensorProto, target: Format, name: str) -> onnx.TensorProto:
    """Return a weight in the target format; finite values beyond its range saturate."""
    array = numpy_helper.to_array(tensor)
    saturated = np.where(np.isfinite(array), np.clip(array, -target.largest, target.largest), array)
    return numpy_helper.from_array(saturated.astype(helper.tensor_dtype_to_np_dtype(target.kind)), name)


def _names_in_subgraphs(node: onnx.NodeProto) -> Iterator[MutableSequence[str]]:
    """Yield the input names of each node in the subgraphs of a node; ONNX forbids a subgraph to shadow outer names."""
    graphs = [graph for one in node.attribute for graph in (one.g, *one.graphs) if graph.node]
    for graph in graphs:
        for inner in graph.node:
            yield inner.input
            yield from _names_in_subgraphs(inner)
