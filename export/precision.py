"""The fp32 graph at another precision. TensorRT is strongly typed: an engine computes in the types that its graph names."""

from __future__ import annotations

import copy

import onnx

from export.embed import PREFIX

_FP32_OPERATORS = ("LayerNormalization",)
"""Stay in fp32: they square the residual stream, and one outlier channel above 256 overflows fp16. Softmax does not stay: its
inputs are scaled before the product, so they are small, and casts around it would stand in the way of fused attention."""


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph that computes in float16, its norms and embedded preprocessing aside; its input and output stay as they are."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    # Types of intermediate values are inferred anew by whoever reads the file; stale ones would contradict the new casts.
    original = copy.deepcopy(model)
    embedded = [node.name for node in original.graph.node if node.name.startswith(PREFIX)]
    converted: onnx.ModelProto = convert_float_to_float16(
        original,
        keep_io_types=True,
        op_block_list=list(_FP32_OPERATORS),
        node_block_list=[*_root_mean_squares(original), *embedded],
    )
    _skip_round_trips(converted)
    OnnxModel.graph_topological_sort(converted.graph)  # the converter appends its casts at the end
    del converted.graph.value_info[:]
    return converted


def _root_mean_squares(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes of every RMSNorm, Reciprocal(Sqrt(ReduceMean(Pow(x, 2)) + eps)): they square the stream as well."""
    producers = {name: node for node in model.graph.node for name in node.output}
    names = []
    for node in model.graph.node:
        if node.op_type == "Reciprocal":
            names.append(node.name)
            while node.op_type != "Pow":
                node = producers[node.input[0]]
                names.append(node.name)
    return names


def _skip_round_trips(model: onnx.ModelProto) -> None:
    """Hand values from one fp32 node to the next as they are: the converter casts them to fp16 and back, which overflows."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    before = {node.output[0]: node.input[0] for node in graph.node if _casts_to(node, onnx.TensorProto.FLOAT16)}
    back = [node for node in graph.node if _casts_to(node, onnx.TensorProto.FLOAT) and node.input[0] in before]
    skipped = {node.output[0]: before[node.input[0]] for node in back if node.output[0] not in outputs}
    kept = [node for node in graph.node if node.output[0] not in skipped]
    for node in kept:
        node.input[:] = [skipped.get(name, name) for name in node.input]
    read = {name for node in kept for name in node.input} | outputs
    used = [node for node in kept if node.output[0] not in before or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(used)


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(attribute.i == kind for attribute in node.attribute if attribute.name == "to")
