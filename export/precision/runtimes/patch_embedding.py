"""The patch embedding as a matrix product, so that it can be quantised like any other linear."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxscript.rewriter import pattern, rewrite


def patches_as_product(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite the patch embedding as a product; one that overlaps, pads or leaves pixels out is not changed.

    An 8-bit image loses little as an 8-bit input; docs/precision.md has the gain.

    Args:
        model: with static image sizes; the batch may be dynamic.
    """
    rule = pattern.RewriteRule(_convolution, _product, _cuts_into_patches)
    changed: onnx.ModelProto = rewrite(model, pattern_rewrite_rules=[rule])
    return changed


def _convolution(op: Any, images: Any, kernel: Any, bias: Any, shape: Any) -> Any:
    """Build the pattern: images [B, C, H, W] -> tokens [B, patches, dim], by a Conv whose output is reshaped to rows."""
    return op.Transpose(op.Reshape(op.Conv(images, kernel, bias, _outputs=["maps"]), shape), perm=[0, 2, 1])


def _cuts_into_patches(context: Any, images: ir.Value, kernel: ir.Value, maps: ir.Value, **_: Any) -> bool:
    """Return whether every pixel is in exactly one patch, and all sizes are static."""
    conv = maps.producer()
    if conv is None or kernel.const_value is None or images.shape is None or len(images.shape) != 4:
        return False
    patch = kernel.const_value.numpy().shape[2:]
    given = conv.attributes.get_ints
    plain = not any(given("pads", (0,)) or ()) and conv.attributes.get_int("group", 1) == 1
    whole = all(isinstance(side, int) and side % step == 0 for side, step in zip(images.shape[2:], patch, strict=True))
    return plain and whole and tuple(given("strides", (1, 1)) or ()) == patch


def _product(op: Any, images: ir.Value, kernel: ir.Value, bias: ir.Value, **_: Any) -> Any:
    """Build the replacement: patches as rows in token order, times the kernel as a matrix [C P P, dim]."""
    assert images.shape is not None  # for the type checker: the condition has seen both
    assert kernel.const_value is not None
    weight = kernel.const_value.numpy()
    dim, channels, *patch = weight.shape
    grid = [side // step for side, step in zip(images.shape[2:], patch, strict=True) if isinstance(side, int)]

    def constant(name: str, value: Any) -> Any:
        return op.initializer(ir.tensor(value), f"patch_embed.{name}")

    cut = op.Reshape(images, constant("grid", np.array([-1, channels, grid[0], patch[0], grid[1], patch[1]])))
    size = constant("rows", np.array([-1, grid[0] * grid[1], channels * patch[0] * patch[1]]))
    rows = op.Reshape(op.Transpose(cut, perm=[0, 2, 4, 1, 3, 5]), size)
    return op.Add(op.MatMul(rows, constant("matrix", np.ascontiguousarray(weight.reshape(dim, -1).T))), bias)
