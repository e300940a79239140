"""Allocation against brute force, budgets, break-even points and its own promises."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitnla.allocation import LayerOptions, Rank, energy, knapsack, same_rank, uniform
from vitnla.common.errors import InputError
from vitnla.model import ViTConfig
from vitnla.model.config import BlockConfig, Ranks
from vitnla.model.cost import encoder_macs, encoder_parameters

ATTENTION_AND_MLP = [(576, 192), (192, 192), (768, 192), (192, 768)]


def layer(shape: tuple[int, int], decay: float = 0.9, importance: float = 1.0, tokens: int = 5) -> LayerOptions:
    energies = decay ** np.arange(min(shape), dtype=float)
    return LayerOptions(f"{shape[0]} x {shape[1]}", shape, tokens, energies, importance * energies)


def spent(layers: list[LayerOptions], ranks: list[Rank]) -> int:
    costs = (5 * (math.prod(entry.shape) if r is None else r * sum(entry.shape)) for entry, r in zip(layers, ranks, strict=True))
    return sum(costs)


def loss(layers: list[LayerOptions], ranks: list[Rank]) -> float:
    cut = [(entry, rank) for entry, rank in zip(layers, ranks, strict=True) if rank is not None]
    return sum(float(entry.losses[rank:].sum()) for entry, rank in cut)


@st.composite
def small_problems(draw: st.DrawFn) -> tuple[list[LayerOptions], float]:
    layers = [
        layer((draw(st.integers(2, 9)), draw(st.integers(2, 9))), draw(st.floats(0.1, 1.0)), draw(st.floats(0.01, 100)))
        for _ in range(draw(st.integers(1, 4)))
    ]
    return layers, draw(st.floats(0.2, 1.0))


@settings(max_examples=80, deadline=None)
@given(small_problems())
def test_knapsack_is_optimal(problem: tuple[list[LayerOptions], float]) -> None:
    layers, target = problem
    budget = target * sum(entry.dense_macs for entry in layers)
    options = [[choice.rank for choice in entry.choices(1)] for entry in layers]
    allowed = [list(ranks) for ranks in itertools.product(*options) if spent(layers, list(ranks)) <= budget]
    if not allowed:
        with pytest.raises(InputError, match="expected a ratio from"):
            knapsack(layers, target, multiple=1)
        return
    found = knapsack(layers, target, multiple=1)
    assert spent(layers, found) <= budget
    assert loss(layers, found) == pytest.approx(min(loss(layers, ranks) for ranks in allowed), rel=1e-9, abs=1e-12)


def test_knapsack_with_costs_that_share_no_divisor_keeps_to_the_budget_and_is_nearly_optimal() -> None:
    layers = [layer((1009, 499), 0.99), layer((997, 503), 0.98), layer((1013, 491), 0.995)]
    found = knapsack(layers, 0.5, multiple=8)
    dense = sum(entry.dense_macs for entry in layers)
    assert spent(layers, found) <= 0.5 * dense
    options = [[choice.rank for choice in entry.choices(8)] for entry in layers]
    best = min(loss(layers, list(r)) for r in itertools.product(*options) if spent(layers, list(r)) <= 0.5 * dense)
    assert best <= loss(layers, found) <= 1.01 * best


def test_knapsack_spends_where_it_matters() -> None:
    first, second = knapsack([layer((64, 64), importance=1000), layer((64, 64), importance=0.001)], 0.6, multiple=4)
    assert second is not None
    assert first is None or first > second


@settings(max_examples=80, deadline=None)
@given(small_problems())
def test_uniform_is_within_one_step_below_the_target(problem: tuple[list[LayerOptions], float]) -> None:
    layers, target = problem
    budget = target * sum(entry.dense_macs for entry in layers)
    if sum(entry.choices(1)[0].cost for entry in layers) > budget:
        with pytest.raises(InputError, match="expected a ratio from"):
            uniform(layers, target, multiple=1)
        return
    ranks = uniform(layers, target, multiple=1)
    left = budget - spent(layers, ranks)
    assert left >= 0
    for entry, rank in zip(layers, ranks, strict=True):
        rest = [choice.cost for choice in entry.choices(1) if rank is not None and (choice.rank is None or choice.rank > rank)]
        assert not rest or rest[0] - spent([entry], [rank]) > left - 1  # a budget is a whole number of MACs


@pytest.mark.parametrize("target", [0.3, 0.5, 0.65, 0.8, 0.95])
def test_uniform_cuts_every_linear_alike(target: float) -> None:
    layers = [layer(shape) for shape in ATTENTION_AND_MLP * 6]
    ranks = uniform(layers, target)
    step = max(8 * sum(entry.shape) / math.prod(entry.shape) for entry in layers)
    for entry, rank in zip(layers, ranks, strict=True):
        assert abs(spent([entry], [rank]) / entry.dense_macs - target) <= step
    total = spent(layers, ranks) / sum(entry.dense_macs for entry in layers)
    assert target - 0.01 < total <= target


@pytest.mark.parametrize("allocate", [uniform, knapsack])
def test_the_whole_budget_is_the_dense_model(allocate: object) -> None:
    assert callable(allocate)
    assert allocate([layer(shape) for shape in ATTENTION_AND_MLP], 1.0) == [None] * 4


@pytest.mark.parametrize("allocate", [uniform, knapsack])
@pytest.mark.parametrize("target", [0.0, -1.0, 1.01, 0.02, math.nan])
def test_targets_out_of_reach_name_the_range(allocate: object, target: float) -> None:
    assert callable(allocate)
    with pytest.raises(InputError, match=r"expected a ratio from 0\.056 to 1"):
        allocate([layer(shape) for shape in ATTENTION_AND_MLP], target)


@pytest.mark.parametrize("shape", [*ATTENTION_AND_MLP, (7, 3), (16, 16)])
def test_no_choice_is_at_or_above_break_even(shape: tuple[int, int]) -> None:
    entry = layer(shape)
    limit = math.prod(shape) / sum(shape)
    ranks = [choice.rank for choice in entry.choices(1)]
    assert ranks[-1] is None
    assert ranks[:-1] == list(range(1, math.ceil(limit)))
    costs = [choice.cost for choice in entry.choices(1)]
    assert costs == sorted(set(costs))


def test_one_rank_everywhere_is_dense_where_it_would_not_pay() -> None:
    assert same_rank([layer((64, 64)), layer((256, 64))], 32) == [None, 32]


@pytest.mark.parametrize("rank", [0, -3, 64, 100])
def test_a_rank_out_of_range_names_the_linear_and_its_maximum(rank: int) -> None:
    with pytest.raises(InputError, match=f"256 x 64: expected a rank from 1 to 63, got {rank}"):
        same_rank([layer((256, 64)), layer((256, 128))], rank)


def test_energy_takes_the_smallest_rank_that_keeps_the_share() -> None:
    entry = LayerOptions("x", (40, 10), 5, np.array([50.0, 30, 10, 5, 5, 0, 0, 0, 0, 0]), np.ones(10))
    assert energy([entry], 0.5) == [1]
    assert energy([entry], 0.51) == [2]
    assert energy([entry], 0.9) == [3]
    assert energy([entry], 1.0) == [5]
    assert energy([entry], 0.51, multiple=4) == [4]
    assert energy([entry], 1.0, multiple=8) == [None]  # 8 is the break-even rank
    with pytest.raises(InputError, match="share above 0"):
        energy([entry], 0.0)


def test_costs_of_a_model() -> None:
    dense = ViTConfig.uniform(image_size=8, patch_size=4, channels=1, classes=10, dim=16, depth=2, heads=2, mlp_ratio=2.0)
    block: BlockConfig = dense.blocks[0].model_copy(update={"ranks": Ranks(qkv=3, fc2=2)})
    smaller = dense.model_copy(update={"blocks": (block, dense.blocks[1])})
    per_block = 48 * 16 + 16 * 16 + 2 * 32 * 16
    saved = 48 * 16 - 3 * (48 + 16) + 32 * 16 - 2 * (32 + 16)
    macs, parameters = encoder_macs(smaller, dense), encoder_parameters(smaller, dense)
    assert (macs.dense, macs.model) == (5 * 2 * per_block, 5 * (2 * per_block - saved))
    assert (parameters.dense - parameters.model, parameters.dense) == (saved, 2 * (per_block + 48 + 16 + 32 + 16))
