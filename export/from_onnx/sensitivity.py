"""Sensitivity of the predictions to each linear's output, from forward passes with added noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from export.from_onnx.calibrate import EncoderLinear
from export.from_onnx.session import GraphSession
from export.from_onnx.source import OnnxSource
from export.graph.parity import as_logits
from runtime.check.logits import are_probabilities
from runtime.runners.base import Images
from vitnla.linalg.arrays import Float64
from vitnla.linalg.low_rank import output_error
from vitnla.linalg.moments import Moments

_RELATIVE = 1e-2
"""Noise relative to the RMS of the output: small enough for a second-order expansion, far above float32 rounding."""
_BATCH = 8


def sensitivities(
    source: OnnxSource, linears: Sequence[EncoderLinear], moments: Mapping[str, Moments[Float64]], images: Images,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[float]:  # fmt: skip
    """Return the mean Fisher information per element of each linear's output, as defined in `vitnla.calibration.collect`.

    A change dy of an output changes the class probabilities by KL = dyT F dy / 2 to second order (Amari 1998). With random
    signs times s as dy, its mean is s^2 tr(F) / 2 (Hutchinson 1990): one forward pass per linear estimates tr(F), where
    torch takes one backward pass.

    Args:
        images: [N, C, H, W], in the graph's input format. If its batch is fixed, N is a multiple of it.
    """
    noisy = source.model.clone()
    inputs = [_add_noise(noisy, one) for one in linears]
    session = GraphSession(noisy, source.batch)
    silent = {name: np.zeros((1,), np.float32) for name in inputs}
    size = source.batch or _BATCH
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    read = as_logits("probabilities" if are_probabilities(session.run(parts[0], [source.output], silent)[0]) else "logits")
    plain = [read(session.run(part, [source.output], silent)[0]).astype(np.float64) for part in parts]
    outputs = session.run(parts[0][: source.batch or 1], [f"{name}.of" for name in inputs], silent)
    shapes = {name: y.shape for name, y in zip(inputs, outputs, strict=True)}
    signs = np.random.default_rng(0)
    found = []
    for index, (name, one) in enumerate(zip(inputs, linears, strict=True)):
        scale = np.float32(_scale(one, moments[str(one.linear.x.name)]))
        first, *rest = shapes[name]  # the first axis is the batch, or batch and tokens in one
        divergence = 0.0
        for part, logits in zip(parts, plain, strict=True):
            shape = (first * len(part) // (source.batch or 1), *rest)
            noise = scale * signs.choice(np.array([-1, 1], np.float32), shape)
            changed = read(session.run(part, [source.output], {**silent, name: noise})[0]).astype(np.float64)
            divergence += _divergence(logits, changed) * len(part) / len(images)
        found.append(float(2 * divergence / (float(scale) ** 2 * one.tokens * one.linear.shape[0])))
        on_progress(index + 1, len(linears))
    return found


def _add_noise(model: ir.Model, one: EncoderLinear) -> str:
    """Add a graph input to the linear's output, which becomes a graph output, and return its name."""
    node = next(node for node in model.graph if node.outputs[0].name == one.linear.node.outputs[0].name)
    value = node.outputs[0]
    name = f"{value.name}.noise"
    noise = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT))
    model.graph.inputs.append(noise)
    added = ir.node("Add", [value, noise], name=name)
    uses = [use for use in value.uses() if use.node is not added]
    for use in uses:
        use.node.replace_input_with(use.idx, added.outputs[0])
    model.graph.insert_after(node, added)
    added.outputs[0].name, added.outputs[0].type = f"{name}.of", ir.TensorType(ir.DataType.FLOAT)
    model.graph.outputs.append(added.outputs[0])
    return name


def _scale(one: EncoderLinear, moments: Moments[Float64]) -> float:
    weight, bias = one.linear.map.weight, one.linear.map.bias
    energy = output_error(weight, moments.covariance) + float(np.square(weight @ moments.mean + bias).sum())
    return _RELATIVE * math.sqrt(energy / len(weight)) or _RELATIVE


def _divergence(logits: Float64, changed: Float64) -> float:
    """Return the mean KL(p || q) in nats per image, to second order in the change of the logits."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    p = exponentials / exponentials.sum(1, keepdims=True)
    change = changed - logits
    return float((((p * change**2).sum(1)) - (p * change).sum(1) ** 2).mean() / 2)
