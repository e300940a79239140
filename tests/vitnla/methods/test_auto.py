"""`auto`: the candidates it chooses from, what it measures, and what it makes."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitnla.calibration.block_sensitivity import Probe
from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.methods.auto.apply import apply
from vitnla.methods.auto.config import AutoConfig
from vitnla.methods.parts.block_curves import WIDTHS, BlockCurves
from vitnla.methods.parts.candidates import Candidate, both, frontier, middle
from vitnla.methods.parts.narrowed import narrowed_model
from vitnla.model import LINEARS, VisionTransformer, ViTConfig
from vitnla.model.cost import encoder_macs
from vitnla.training.initialise import new_model

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
# More tokens than the widest layer has units: with fewer, some units are free, and no budget would buy them back.
IMAGES = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
costs = st.tuples(st.integers(1, 20), st.floats(0, 10))


@pytest.fixture(scope="module")
def model() -> VisionTransformer:
    config = ViTConfig.uniform(image_size=8, patch_size=4, channels=1, classes=10, dim=48, depth=2, heads=2, layer_scale=True)
    return new_model(config, seed=1).eval()


@pytest.fixture(scope="module")
def statistics(model: VisionTransformer) -> Statistics:
    return collect(model, IMAGES, PREPROCESSING)


@given(st.lists(costs, min_size=1, max_size=12))
def test_the_frontier_holds_every_candidate_that_none_beats(points: list[tuple[int, float]]) -> None:
    kept = frontier(Candidate(macs, loss, {}) for macs, loss in points)
    found = {(one.cost, one.loss) for one in kept}
    beaten = {(m, loss) for m, loss in points if any(o <= m and k <= loss and (o, k) != (m, loss) for o, k in points)}
    assert found == set(points) - beaten
    assert [one.cost for one in kept] == sorted(one.cost for one in kept)


def test_two_parts_at_once_cost_and_lose_both() -> None:
    pairs = both([Candidate(1, 0.5, {"qk_dim": 8}), Candidate(2, 0.0, {})], [Candidate(10, 0.25, {"v_dim": 16})])
    assert pairs == [Candidate(11, 0.75, {"qk_dim": 8, "v_dim": 16}), Candidate(12, 0.25, {"v_dim": 16})]
    assert middle([Candidate(macs, 0.0, {}) for macs in (10, 40, 60, 100)]).cost == 40


@pytest.mark.parametrize("name", [*WIDTHS, *LINEARS])
def test_every_candidate_costs_what_its_model_does(model: VisionTransformer, statistics: Statistics, name: str) -> None:
    """The MACs by which the allocator counts are those of the model that it would get."""
    curves = BlockCurves.of(model, 1, statistics)
    candidates = curves.candidates(name, 8)
    whole = candidates[-1]
    assert (whole.loss, whole.sizes) == (0.0, {})
    dense = encoder_macs(model.config, model.config).dense
    for candidate in candidates:
        made = narrowed_model(model, {1: curves.at(candidate.sizes)}).model
        assert dense - encoder_macs(made.config, model.config).model == whole.cost - candidate.cost


def test_a_probe_sees_no_change_where_there_is_none(model: VisionTransformer, statistics: Statistics) -> None:
    samples = statistics.require_samples()
    tokens = samples.embedded(model, 5, batch_size=2)
    assert len(tokens) == 5
    torch.testing.assert_close(tokens, samples.embedded(model)[:5])
    probe = Probe(model, tokens)
    assert probe.divergence(0, model.blocks[0]) < 1e-10
    assert probe.divergence(0, torch.nn.Identity()) > 1e-8


def test_a_probe_is_the_divergence_of_the_whole_model(model: VisionTransformer, statistics: Statistics) -> None:
    """To second order: so for a small change, and on the average over signs."""
    tokens = statistics.require_samples().embedded(model)
    changed = copy.deepcopy(model)
    with torch.inference_mode():
        changed.blocks[0].mlp.fc2.weight.mul_(1.02)
        p, q = (one.classify(one.encode(tokens)).double().log_softmax(-1) for one in (model, changed))
    expected = float((p.exp() * (p - q)).sum(1).mean())
    assert expected > 0
    assert Probe(model, tokens).divergence(0, changed.blocks[0]) == pytest.approx(expected, rel=0.15)


def test_a_probe_leaves_the_model_as_it_was(model: VisionTransformer, statistics: Statistics) -> None:
    Probe(model, statistics.require_samples().embedded(model, 4))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("target", [0.4, 0.55, 0.8])
def test_it_keeps_to_the_budget_and_comes_close(model: VisionTransformer, statistics: Statistics, target: float) -> None:
    found = apply(model, statistics, AutoConfig(target_macs=target)).model
    ratio = encoder_macs(found.config, model.config).ratio
    assert target - 0.06 < ratio <= target


def test_the_whole_budget_leaves_the_model_as_it_is(model: VisionTransformer, statistics: Statistics) -> None:
    found = apply(model, statistics, AutoConfig(target_macs=1.0, refit=False))
    assert found.model.config == model.config
    assert all(row.relative_error == 0 and row.retained_energy == 1 for row in found.layers)


def test_the_fit_brings_the_predictions_closer(model: VisionTransformer, statistics: Statistics) -> None:
    tokens = statistics.require_samples().embedded(model)
    with torch.inference_mode():
        dense = model.encode(tokens)
        errors = [
            float((apply(model, statistics, AutoConfig(target_macs=0.5, refit=fit)).model.encode(tokens) - dense).square().mean())
            for fit in (False, True)
        ]
    assert errors[1] < errors[0]


def test_what_it_cannot_do_is_one_clear_line(model: VisionTransformer, statistics: Statistics) -> None:
    with pytest.raises(InputError, match="expected a ratio from"):
        apply(model, statistics, AutoConfig(target_macs=0.001))
    with pytest.raises(InputError, match="expected calibration images"):
        apply(model, replace(statistics, samples=None), AutoConfig())
    decomposed = METHODS["svd"].apply(model, statistics, METHODS["svd"].config())
    with pytest.raises(InputError, match="low-rank"):
        apply(decomposed.model, collect(decomposed.model, IMAGES, PREPROCESSING), AutoConfig())
