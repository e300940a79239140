"""Graph edits of the methods that support graphs; settings, choices and algebra are those of the methods on torch models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from export.from_onnx.blocks import GraphMlp, Place, find_mlps, place
from export.from_onnx.calibrate import EncoderLinear
from export.from_onnx.linears import GraphLinear
from export.from_onnx.rewrite import drop_unused, make_low_rank, make_narrow, values_in_use
from vitnla.allocation import Rank
from vitnla.common.errors import InputError
from vitnla.common.measures import Cost, LayerRow
from vitnla.common.schema import Record
from vitnla.linalg.arrays import Float64
from vitnla.linalg.low_rank_curve import LowRankCurve
from vitnla.linalg.mlp_curve import MlpCurve
from vitnla.linalg.moments import Moments
from vitnla.methods.cholesky.config import CholeskyConfig, choose_widths
from vitnla.methods.none.config import NoneConfig
from vitnla.methods.svd.config import SvdConfig, choose_ranks
from vitnla.model.cost import linear_macs


@dataclass(frozen=True, eq=False)
class GraphDecomposition:
    """Result of a method: the table rows of every encoder linear, and their costs. `exact` if the graph is unchanged."""

    layers: tuple[LayerRow, ...]
    macs: Cost
    parameters: Cost
    exact: bool


@dataclass(frozen=True, eq=False)
class Encoder:
    """The linears of a graph that methods may change, in node order, with their places."""

    model: ir.Model
    linears: Sequence[EncoderLinear]
    mlps: Sequence[GraphMlp]
    places: Mapping[GraphLinear, Place]

    @classmethod
    def of(cls, model: ir.Model, linears: Sequence[EncoderLinear]) -> Encoder:
        """Return the encoder of these linears, with its MLPs found and all places named."""
        plain = [one.linear for one in linears]
        mlps = find_mlps(plain)
        return cls(model, linears, mlps, dict(zip(plain, place(plain, mlps), strict=True)))


@dataclass(frozen=True)
class _Change:
    shape: tuple[int, int]
    rank: Rank
    error: float
    retained: float
    biased: bool
    """Whether the new linear has a bias; a refitted or centred one has, even if the old one had none."""


def decompose(
    encoder: Encoder, method: str, moments: Mapping[GraphLinear, Moments[Float64]], config: Record
) -> GraphDecomposition:
    """Apply a method to an encoder: choose ranks or widths as on a torch model, and change the graph.

    Args:
        encoder: its graph is changed.
        method: name of a method that supports graphs.
        moments: of the inputs of the linears; may be empty if the method needs none.
        config: the method's.

    Raises:
        InputError: a number is not finite, the ranks or the target asked for cannot be had, or `cholesky` recognises no MLP.
    """
    used = values_in_use(encoder.model)
    changed = GRAPH_EDITS[method](encoder, moments, config)
    drop_unused(encoder.model, used)
    return _decomposition(encoder, changed)


def edit_none(
    encoder: Encoder, moments: Mapping[GraphLinear, Moments[Float64]], config: NoneConfig
) -> dict[GraphLinear, _Change]:
    """Leave the graph as it is."""
    return {}


def edit_svd(encoder: Encoder, moments: Mapping[GraphLinear, Moments[Float64]], config: SvdConfig) -> dict[GraphLinear, _Change]:
    """Replace every linear that gets a rank by a low-rank pair."""
    linears = [one.linear for one in encoder.linears]
    curves = [LowRankCurve.of(linear.map, moments[linear], config.weighting) for linear in linears]
    names = [f"{encoder.places[linear]} ('{linear.name}')" for linear in linears]
    ranks = choose_ranks(names, curves, [one.tokens for one in encoder.linears], config)
    changed = {}
    for linear, curve, rank in zip(linears, curves, ranks, strict=True):
        if rank is not None:
            fit = curve.at(rank)
            make_low_rank(encoder.model, linear, fit.map)
            biased = _biased(linear) or bool(np.any(fit.map.bias))
            changed[linear] = _Change(linear.shape, rank, fit.error, fit.retained, biased)
    return changed


def edit_cholesky(
    encoder: Encoder, moments: Mapping[GraphLinear, Moments[Float64]], config: CholeskyConfig
) -> dict[GraphLinear, _Change]:
    """Keep the selected hidden units of every recognised MLP, and refit its second linear to them."""
    if not encoder.mlps:
        hint = "gated MLPs and activations per channel are not such; --method svd needs no pattern"
        raise InputError("cholesky: found no MLP in the graph: linear, activation, linear", hint)
    tokens = {one.linear: one.tokens for one in encoder.linears}
    curves = [MlpCurve.of(mlp.fc1.map, mlp.fc2.map, moments[mlp.fc2], config.damping) for mlp in encoder.mlps]
    dense_macs = sum(one.dense_macs for one in encoder.linears)
    widths = choose_widths(curves, [tokens[mlp.fc1] for mlp in encoder.mlps], dense_macs, config)
    changed = {}
    for mlp, curve, width in zip(encoder.mlps, curves, widths, strict=True):
        if width < curve.full:
            fit = curve.at(width)
            make_narrow(encoder.model, mlp, fit)
            changed[mlp.fc1] = _Change(fit.first.shape, None, fit.error, fit.retained, _biased(mlp.fc1))
            changed[mlp.fc2] = _Change(fit.second.shape, None, fit.error, fit.retained, True)
    return changed


GRAPH_EDITS: Mapping[str, Callable[[Encoder, Mapping[GraphLinear, Moments[Float64]], Any], dict[GraphLinear, _Change]]] = {
    "none": edit_none, "svd": edit_svd, "cholesky": edit_cholesky,
}  # fmt: skip
"""Method name -> graph edit, for every method of `vitnla.methods.METHODS` that supports graphs."""


def _biased(linear: GraphLinear) -> bool:
    return linear.add is not None


def _decomposition(encoder: Encoder, changed: Mapping[GraphLinear, _Change]) -> GraphDecomposition:
    rows = []
    dense_parameters = 0
    for one in encoder.linears:
        linear, at = one.linear, encoder.places[one.linear]
        change = changed.get(linear, _Change(linear.shape, None, 0.0, 1.0, _biased(linear)))
        dense_parameters += math.prod(linear.shape) + linear.shape[0] * _biased(linear)
        rows.append(
            LayerRow(
                block=at.block, linear=at.linear, rank=change.rank, full_rank=min(change.shape),
                macs=linear_macs(change.shape, change.rank, one.tokens),
                parameters=linear_macs(change.shape, change.rank, tokens=1) + change.shape[0] * change.biased,
                relative_error=change.error, retained_energy=change.retained, shape=change.shape, dense_shape=linear.shape,
            )
        )  # fmt: skip
    dense = sum(one.dense_macs for one in encoder.linears)
    return GraphDecomposition(
        tuple(rows), Cost(dense=dense, model=sum(row.macs for row in rows)),
        Cost(dense=dense_parameters, model=sum(row.parameters for row in rows)), exact=not changed,
    )  # fmt: skip
