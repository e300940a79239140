"""Roles of linears: MLPs are recognised by the operators between two linears; every linear gets a place in the tables."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from export.from_onnx.constants import constant, is_scalar
from export.from_onnx.linears import GraphLinear

_UNARY = frozenset(
    {"Cast", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Selu",
     "Sigmoid", "Softplus", "Sqrt", "Swish", "Tanh"}
)  # fmt: skip
_BINARY = frozenset({"Add", "Div", "Mul", "Pow", "Sub"})
_WORDS = {"q": ("query", "q_proj"), "k": ("key", "k_proj"), "v": ("value", "v_proj")}


@dataclass(frozen=True, eq=False)
class GraphMlp:
    """An MLP: fc1, an elementwise function of the hidden units, fc2.

    Args:
        reshapes: nodes between the two whose constant shape ends with the hidden width.
        inner: all values between the two.
    """

    fc1: GraphLinear
    fc2: GraphLinear
    reshapes: tuple[ir.Node, ...]
    inner: tuple[ir.Value, ...]


@dataclass(frozen=True)
class Place:
    """Location of a linear: its block, and `qkv`, `q`, `k`, `v`, `proj`, `fc1`, `fc2`, or `linear N` if not recognised."""

    block: int
    linear: str

    def __str__(self) -> str:
        return f"block {self.block} {self.linear}"


def find_mlps(linears: list[GraphLinear]) -> list[GraphMlp]:
    """Return every pair of `linears` with only elementwise functions between: GELU in one node or several, ReLU and the like."""
    ends = {linear.node: linear for linear in linears}
    return [mlp for linear in linears if (mlp := _mlp_from(linear, ends)) is not None]


def _mlp_from(first: GraphLinear, ends: dict[ir.Node, GraphLinear]) -> GraphMlp | None:
    """Follow the output of `first` until all of it ends in a single linear; return `None` if it ends elsewhere."""
    width = first.shape[0]
    inner, waiting = [first.y], [first.y]
    ending: GraphLinear | None = None
    reshapes: list[ir.Node] = []
    while waiting:
        value = waiting.pop()
        if value.is_graph_output():
            return None
        for node, at in value.uses():
            if node in ends and at == 0:
                if ending not in (None, ends[node]):
                    return None
                ending = ends[node]
            elif (
                node.op_type == "Reshape"
                and at == 0
                and (shape := constant(node.inputs[1])) is not None
                and shape[-1] in (width, -1)
            ):
                if shape[-1] == width:
                    reshapes.append(node)
            elif not _by_unit(node, inner):
                return None
            if node not in ends and node.outputs[0] not in inner:
                inner.append(node.outputs[0])
                waiting.append(node.outputs[0])
    # One step at least must lie between, or the two are a product of matrices and no MLP.
    if ending is None or ending.shape[1] != width or all(value in (first.y,) for value in inner):
        return None
    return GraphMlp(first, ending, tuple(dict.fromkeys(reshapes)), tuple(inner))


def _by_unit(node: ir.Node, inner: list[ir.Value]) -> bool:
    """Return whether the node is elementwise in the values already known to be elementwise, and in scalars."""
    if node.op_type in _UNARY:
        return True
    return node.op_type in _BINARY and all(value in inner or is_scalar(value) or _later(value, inner) for value in node.inputs)


def _later(value: ir.Value | None, inner: list[ir.Value]) -> bool:
    """Return whether a value depends on the known ones by elementwise nodes that the walk has not reached yet."""
    node = None if value is None else value.producer()
    return node is not None and node.op_type in _UNARY | _BINARY and all(
        one in inner or is_scalar(one) or _later(one, inner) for one in node.inputs
    )  # fmt: skip


def place(linears: list[GraphLinear], mlps: list[GraphMlp]) -> list[Place]:
    """Return the place of every linear; a block ends with the fc2 of its MLP."""
    roles = {mlp.fc1: "fc1" for mlp in mlps} | {mlp.fc2: "fc2" for mlp in mlps}
    places: list[Place] = []
    block: list[GraphLinear] = []
    number = 0
    for linear in linears:
        block.append(linear)
        if roles.get(linear) == "fc2":
            places += [Place(number, name) for name in _names(block, roles)]
            block, number = [], number + 1
    return places + [Place(number, name) for name in _names(block, roles)]


def _names(block: list[GraphLinear], roles: dict[GraphLinear, str]) -> list[str]:
    rest = [linear for linear in block if linear not in roles]
    shared = [linear for linear in rest if linear.x is rest[0].x]
    others = [linear for linear in rest if linear not in shared]
    named = dict(roles)
    if len(shared) == 1 and len(others) == 1:
        named |= {shared[0]: "qkv", others[0]: "proj"}
    elif len(shared) == 3 and len(others) <= 1:
        found = {linear: role for linear in shared if (role := _spoken(linear))}
        if sorted(found.values()) == ["k", "q", "v"]:
            named |= found
        named |= dict.fromkeys(others, "proj")
    return [named.get(linear, f"linear {index + 1}") for index, linear in enumerate(block)]


def _spoken(linear: GraphLinear) -> str | None:
    """Return `q`, `k` or `v` if the exporter's names tell; else `None`."""
    values = [*linear.node.inputs, *(linear.add.inputs if linear.add else ())]
    text = " ".join([linear.name, *(str(value.name) for value in values if value is not None)]).lower()
    said = [role for role, words in _WORDS.items() if any(word in text for word in words)]
    return said[0] if len(said) == 1 else None
