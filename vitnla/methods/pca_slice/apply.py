"""A narrower residual stream: rotated onto its principal axes and truncated to the leading ones.

After `fold_norms` only RMSNorm is between the writers and the readers of the stream x, and for orthonormal Q

    RMSNorm(Q^T x) = Q^T RMSNorm(x),

so with Q [d, d] writers Q^T W and readers W Q compute the same. One Q for the whole model needs no product on the residual
path. Q holds the eigenvectors of E[u u^T], u = RMSNorm(x), averaged over all norms; dropping its last columns narrows every
linear (SliceGPT, Ashkboos et al. 2024, sections 3.2 to 3.4, which has a Q per block and so products between them).

Two corrections are made in closed form. The norm must use the old width d, not the new d':

    x / sqrt(|x|^2 / d + eps) = sqrt(d / d') RMSNorm_d'(x; eps d / d'),

so the config's eps is scaled and the readers absorb the constant, times the mean share of |x| that is left. And each
reader absorbs the regression of the dropped axes on those kept, under its own covariance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitnla.allocation import budget
from vitnla.calibration.statistics import LinearStatistics, Statistics
from vitnla.common.errors import InputError
from vitnla.linalg.low_rank import output_error
from vitnla.linalg.regression import interpolation
from vitnla.methods.parts.model_edit import dense_linear
from vitnla.methods.parts.report_rows import layer_row, relative_error
from vitnla.methods.parts.requirements import require_permission, require_statistics
from vitnla.methods.parts.residual_stream import fold_norms, normed_moments, read, readers, write
from vitnla.methods.pca_slice.config import DAMPING, PcaSliceConfig
from vitnla.methods.registry import METHODS, Decomposition, Method
from vitnla.model.checkpoint import build
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer


def apply(model: VisionTransformer, statistics: Statistics | None, config: PcaSliceConfig) -> Decomposition:
    """Rotate the residual stream onto its principal axes and keep the first of them.

    Raises:
        InputError: there are no statistics or no images, the model is decomposed already, a number is not finite, or the
            width asked for cannot be had.
    """
    statistics = require_statistics("pca-slice", statistics)
    _require_dense(model)
    width = _width(model.config, config)
    folded, moments = fold_norms(model), normed_moments(model, statistics)
    axes = principal_axes(moments)
    lifts = {reader: lift(axes, width, seen) for reader, seen in moments.items()}
    tensors, sliced = slice_stream(folded, axes[:, :width], lifts)
    new = build(sliced, tensors, "sliced model")
    names, rows = {reader.key: reader.linear for reader in readers(model.config)}, []
    for block, name in model.linear_names():
        linear = folded.linear(block, name)
        assert isinstance(linear, nn.Linear)  # for the type checker: the model is dense
        if (reader := names.get((block, name))) is not None:
            error, kept = _reading_error(linear, lifts[reader], moments[reader]), lifts[reader].kept
        else:
            error, kept = _writing_error(linear, axes[:, :width], statistics.linears[block, name])
        rows.append(layer_row(new.config, block, name, error, kept, dense=model.config))
    return Decomposition(new, tuple(rows))


@dataclass(frozen=True)
class Lift:
    """A reader's affine estimate of the normed stream u [d] from the axes kept A^T u [d']: u = matrix A^T u + offset.

    Args:
        matrix: [d, d'] float64; `offset`: [d] float64, which makes the mean exact.
        back: [d, d] float64, matrix A^T.
        kept: share of E|u|^2 along the axes kept.
    """

    matrix: Tensor
    offset: Tensor
    back: Tensor
    kept: float


def principal_axes(moments: Mapping[str, LinearStatistics]) -> Tensor:
    """Return the eigenvectors of the mean of the second moments, [d, d] float64, orthonormal, largest eigenvalue first."""
    values, vectors = torch.linalg.eigh(torch.stack([seen.gram for seen in moments.values()]).mean(0))
    axes: Tensor = vectors[:, values.argsort(descending=True)]
    return axes


def lift(axes: Tensor, width: int, seen: LinearStatistics) -> Lift:
    """Return the best affine estimate of u from its first `width` axes; its mean is exact, and all of it where nothing is dropped."""
    kept = axes[:, :width]
    spread = axes.T @ seen.covariance @ axes
    guess = interpolation(spread, torch.arange(width), DAMPING)
    guess[:width] = torch.eye(width, dtype=guess.dtype)
    matrix = axes @ guess
    total = float(seen.gram.trace())
    share = min(1.0, float((kept.T @ seen.gram @ kept).trace()) / total) if total > 0 else 1.0
    return Lift(matrix, seen.mean - matrix @ (kept.T @ seen.mean), matrix @ kept.T, share)


def slice_stream(folded: VisionTransformer, kept: Tensor, lifts: Mapping[str, Lift]) -> tuple[dict[str, Tensor], ViTConfig]:
    """Return the weights, in float64, and the config of a folded model whose stream is kept^T x, kept [d, d'] orthonormal."""
    dim, width = kept.shape
    tensors = write(folded.state_dict(), folded.config, lambda x: x @ kept)
    for reader in readers(folded.config):
        found = lifts[reader.linear]
        weight, bias = f"{reader.linear}.weight", f"{reader.linear}.bias"
        shift = read(tensors[weight], dim, found.offset[:, None]).sum(1)
        gain = math.sqrt(found.kept * dim / width)
        tensors |= {bias: tensors[bias] + shift, weight: read(tensors[weight], dim, gain * found.matrix)}
    eps = folded.config.norm_eps * dim / width
    return tensors, ViTConfig.model_validate({**dict(folded.config), "dim": width, "norm_eps": eps})


def _require_dense(model: VisionTransformer) -> None:
    """Refuse a stream that has been rotated already, and blocks that read it by other means than their linears."""
    hint = "decompose the dense model instead"
    if model.config.norm != "layer":
        raise InputError(f"pca-slice: expected a model with LayerNorm, got norm '{model.config.norm}', sliced already", hint)
    if model.config.embed_norm:
        what = (
            "no norm between the embedding and the blocks, got embed_norm: its gains cannot be rotated into the weights before it"
        )
        raise InputError(f"pca-slice: expected {what}", "choose another method")
    if model.config.final_norm == "none":
        raise InputError("pca-slice: expected a norm before the head, got final_norm 'none'", "choose another method")
    for block in range(len(model.config.blocks)):
        expected = "a block that reads and writes the stream through its linears alone"
        require_permission(model.config.can_slice_stream(block), f"pca-slice: block {block}", expected)
    for key in model.linear_names():
        dense_linear(model, key)


def _width(shape: ViTConfig, config: PcaSliceConfig) -> int:
    if config.dim is not None:
        if config.dim > shape.dim:
            raise InputError(f"dim: expected at most {shape.dim}, that of the model, got {config.dim}", "choose a smaller one")
        return config.dim
    assert config.target_macs is not None  # for the type checker: the config fills it in
    allowed = budget(shape.dim, min(config.width_multiple, shape.dim), config.target_macs)
    return shape.dim if allowed == shape.dim else allowed // config.width_multiple * config.width_multiple


def _reading_error(linear: nn.Linear, found: Lift, seen: LinearStatistics) -> float:
    """Return the relative error of a reader's output, assuming that its input is exact except for the dropped axes."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    return relative_error(linear, weight @ found.back, bias + weight @ found.offset, seen)


def _writing_error(linear: nn.Linear, kept: Tensor, seen: LinearStatistics) -> tuple[float, float]:
    """Return the relative error of a writer's addition to the stream, and the share of its variance along the axes kept."""
    weight, bias = linear.weight.detach(), linear.bias.detach()
    total = output_error(weight, seen.covariance)
    share = min(1.0, output_error(kept.T @ weight, seen.covariance) / total) if total > 0 else 1.0
    return relative_error(linear, kept @ (kept.T @ weight), kept @ (kept.T @ bias), seen), share


METHODS.add(
    "pca-slice",
    Method(
        "pca-slice", "deployable", "A narrower residual stream: its first principal axes", PcaSliceConfig, apply,
        lambda config: True,
    ),
)  # fmt: skip
