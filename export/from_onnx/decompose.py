"""The methods that work on a graph: `none`, `svd` and `cholesky`, with the settings and the algebra of those on a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from export.from_onnx.blocks import GraphMlp, Place, find_mlps, place
from export.from_onnx.calibrate import EncoderLinear
from export.from_onnx.linears import GraphLinear
from export.from_onnx.rewrite import drop_unused, make_low_rank, make_narrow, values_in_use
from vitnla.allocation import LayerOptions, Rank, WidthOptions
from vitnla.common.errors import InputError
from vitnla.common.measures import Cost, LayerRow
from vitnla.common.schema import Record
from vitnla.linalg.hidden_units import UnitChoice
from vitnla.linalg.low_rank_curve import LowRankCurve
from vitnla.linalg.moments import Moments
from vitnla.methods.cholesky.config import CholeskyConfig, choose_widths
from vitnla.methods.none.config import NoneConfig
from vitnla.methods.svd.config import SvdConfig, allocate
from vitnla.model.cost import linear_macs


@dataclass(frozen=True, eq=False)
class GraphDecomposition:
    """What a method made: the rows of every encoder linear, and their costs. `exact` where the graph is as it was."""

    layers: tuple[LayerRow, ...]
    macs: Cost
    parameters: Cost
    exact: bool


@dataclass(frozen=True, eq=False)
class Encoder:
    """The linears of a graph that methods may change, in its order, and where each is."""

    model: ir.Model
    linears: Sequence[EncoderLinear]
    mlps: Sequence[GraphMlp]
    places: Mapping[GraphLinear, Place]

    @classmethod
    def of(cls, model: ir.Model, linears: Sequence[EncoderLinear]) -> Encoder:
        """Find the MLPs among the linears, and name all."""
        plain = [one.linear for one in linears]
        mlps = find_mlps(plain)
        return cls(model, linears, mlps, dict(zip(plain, place(plain, mlps), strict=True)))


@dataclass(frozen=True)
class GraphMethod:
    """How a method is applied to an encoder, given the moments at the inputs of its linears; the graph is changed."""

    config: type[Record]
    apply: Callable[[Encoder, Mapping[GraphLinear, Moments], Record], GraphDecomposition]
    needs_moments: bool
    needs_sensitivity: Callable[[Record], bool] = lambda config: False


def apply_none(encoder: Encoder, moments: Mapping[GraphLinear, Moments], config: Record) -> GraphDecomposition:
    """The graph as it is."""
    return _decomposition(encoder, {})


def apply_svd(encoder: Encoder, moments: Mapping[GraphLinear, Moments], config: Record) -> GraphDecomposition:
    """Every linear that gets a rank becomes two thin ones.

    Raises:
        InputError: a number is not finite, or the ranks asked for cannot be had.
    """
    assert isinstance(config, SvdConfig)  # for the type checker: the registry pairs them
    curves = {one.linear: LowRankCurve.of(one.linear.map, moments[one.linear], config.weighting) for one in encoder.linears}
    options = [
        LayerOptions(_label(encoder, one.linear), one.linear.shape, one.tokens, curve.basis.energies, curve.lost)
        for one, curve in zip(encoder.linears, curves.values(), strict=True)
    ]
    used = values_in_use(encoder.model)
    changed: dict[GraphLinear, _Change] = {}
    for (linear, curve), rank in zip(curves.items(), allocate(options, config), strict=True):
        if rank is not None:
            new = curve.at(rank)
            make_low_rank(encoder.model, linear, new)
            biased = _biased(linear) or bool(np.any(new.bias))
            changed[linear] = _Change(linear.shape, rank, curve.relative_error(new), curve.retained(rank), biased)
    drop_unused(encoder.model, used)
    return _decomposition(encoder, changed)


def apply_cholesky(encoder: Encoder, moments: Mapping[GraphLinear, Moments], config: Record) -> GraphDecomposition:
    """Every MLP that is recognised keeps some of its hidden units, and its second linear is fitted anew.

    Raises:
        InputError: no MLP is recognised, a number is not finite, or the target cannot be attained.
    """
    assert isinstance(config, CholeskyConfig)  # for the type checker: the registry pairs them
    if not encoder.mlps:
        hint = "gated MLPs and activations per channel are not such; --method svd needs no pattern"
        raise InputError("cholesky: found no MLP in the graph: linear, activation, linear", hint)
    tokens = {one.linear: one.tokens for one in encoder.linears}
    units = [UnitChoice.of(mlp.fc2.map, moments[mlp.fc2], config.damping) for mlp in encoder.mlps]
    layers = [
        WidthOptions(tokens[mlp.fc1] * (mlp.fc1.shape[1] + mlp.fc2.shape[0]), choice.losses)
        for mlp, choice in zip(encoder.mlps, units, strict=True)
    ]
    widths = choose_widths(layers, sum(one.dense_macs for one in encoder.linears), config)
    used = values_in_use(encoder.model)
    changed: dict[GraphLinear, _Change] = {}
    for mlp, choice, width in zip(encoder.mlps, units, widths, strict=True):
        if width < len(choice.order):
            found = choice.at(width)
            make_narrow(encoder.model, mlp, found.kept, found.second)
            changed[mlp.fc1] = _Change((width, mlp.fc1.shape[1]), None, found.error, found.retained, _biased(mlp.fc1))
            changed[mlp.fc2] = _Change((mlp.fc2.shape[0], width), None, found.error, found.retained, True)
    drop_unused(encoder.model, used)
    return _decomposition(encoder, changed)


METHODS: dict[str, GraphMethod] = {
    "none": GraphMethod(NoneConfig, apply_none, needs_moments=False),
    "svd": GraphMethod(
        SvdConfig, apply_svd, needs_moments=True,
        needs_sensitivity=lambda config: isinstance(config, SvdConfig) and config.target_macs is not None and config.allocation == "knapsack",
    ),
    "cholesky": GraphMethod(
        CholeskyConfig, apply_cholesky, needs_moments=True,
        needs_sensitivity=lambda config: isinstance(config, CholeskyConfig) and config.keep is None and config.allocation == "knapsack",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class _Change:
    shape: tuple[int, int]
    rank: Rank
    error: float
    retained: float
    biased: bool
    """Whether it adds a bias: a refitted or centred linear does also where the old one did not."""


def _biased(linear: GraphLinear) -> bool:
    return linear.add is not None


def _label(encoder: Encoder, linear: GraphLinear) -> str:
    return f"{encoder.places[linear]} ('{linear.name}')"


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
