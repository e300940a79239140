"""The svd method: what it promises about outputs, ranks, costs and its report."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.methods.registry import Decomposition
from vitnla.methods.svd.apply import SvdConfig
from vitnla.model import LowRankLinear, VisionTransformer
from vitnla.model.cost import encoder_macs

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)


@pytest.fixture
def statistics(tiny_model: VisionTransformer) -> Statistics:
    return collect(tiny_model, IMAGES, PREPROCESSING)


def svd(model: VisionTransformer, statistics: Statistics | None, **settings: object) -> Decomposition:
    return METHODS["svd"].apply(model, statistics, SvdConfig.model_validate({"rank_multiple": 1, **settings}))


def logits(model: VisionTransformer) -> Tensor:
    with torch.inference_mode():
        return model(torch.from_numpy(PREPROCESSING(IMAGES)))


@pytest.mark.parametrize("weighting", ["none", "gram", "cholesky", "centered"])
def test_reported_errors_are_those_of_the_outputs(tiny_model: VisionTransformer, statistics: Statistics, weighting: str) -> None:
    """For the first linear the inputs are the dense model's own, so that the error can be measured on them."""
    result = svd(tiny_model, statistics, rank=4, weighting=weighting)
    with torch.no_grad():
        x = tiny_model.blocks[0].norm1(tiny_model.embed(torch.from_numpy(PREPROCESSING(IMAGES)))).reshape(-1, 16)
        old, new = tiny_model.linear(0, "qkv")(x).double(), result.model.linear(0, "qkv")(x).double()
    measured = float((new - old).norm() / (old - old.mean(0)).norm())
    assert measured > 0.01
    assert result.layers[0].relative_error == pytest.approx(measured, rel=1e-4)


def test_centred_loses_least_and_plain_most(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    errors = [
        [row.relative_error for row in svd(tiny_model, statistics, rank=3, weighting=weighting).layers]
        for weighting in ("centered", "gram", "none")
    ]
    for centred, gram, plain in zip(*errors, strict=True):
        assert centred <= gram * (1 + 1e-6)
        assert gram <= plain * (1 + 1e-6)
    assert sum(errors[0]) < sum(errors[1]) < sum(errors[2])


def test_cholesky_whitening_is_the_gram_form(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    eigen, whitened = (svd(tiny_model, statistics, rank=4, weighting=weighting).model for weighting in ("gram", "cholesky"))
    assert torch.allclose(logits(eigen), logits(whitened), atol=1e-5)


def test_the_mean_output_is_kept_exactly(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    result = svd(tiny_model, statistics, rank=2)
    for key in tiny_model.linear_names():
        mean = statistics.linears[key].mean.float()
        with torch.no_grad():
            assert torch.allclose(tiny_model.linear(*key)(mean), result.model.linear(*key)(mean), atol=1e-5)


@pytest.mark.parametrize("allocation", ["uniform", "knapsack"])
@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
def test_the_target_is_met(tiny_model: VisionTransformer, statistics: Statistics, allocation: str, target: float) -> None:
    result = svd(tiny_model, statistics, target_macs=target, allocation=allocation)
    macs = encoder_macs(result.model.config, tiny_model.config)
    assert target - 0.05 < macs.ratio <= target
    assert sum(row.macs for row in result.layers) == macs.model
    for row in result.layers:
        linear = result.model.linear(row.block, row.linear)  # type: ignore[arg-type]
        assert (row.rank is None) == isinstance(linear, torch.nn.Linear)
        assert row.parameters == sum(parameter.numel() for parameter in linear.parameters())


def test_more_macs_bring_the_logits_closer(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    dense = logits(tiny_model)
    errors = [float((logits(svd(tiny_model, statistics, target_macs=target).model) - dense).norm()) for target in (0.3, 0.6, 0.9)]
    assert errors[0] > errors[1] > errors[2] > 0


def test_knapsack_keeps_the_predictions_better_than_uniform(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    dense = logits(tiny_model).log_softmax(1)

    def divergence(allocation: str) -> float:
        found = logits(svd(tiny_model, statistics, target_macs=0.6, allocation=allocation).model).log_softmax(1)
        return float((dense.exp() * (dense - found)).sum(1).mean())

    assert divergence("knapsack") < divergence("uniform")


def test_energy_keeps_at_least_its_share(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    result = svd(tiny_model, statistics, energy=0.8)
    assert all(row.retained_energy >= 0.8 for row in result.layers)
    assert any(row.rank is not None and row.retained_energy < 1 for row in result.layers)


def test_dense_rows_have_no_error(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    result = svd(tiny_model, statistics, target_macs=1.0)
    assert all((row.rank, row.relative_error, row.retained_energy) == (None, 0.0, 1.0) for row in result.layers)
    assert torch.equal(logits(result.model), logits(tiny_model))


def test_one_rank_for_every_linear(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    result = svd(tiny_model, statistics, rank=7)
    assert [row.rank for row in result.layers] == [7] * 8
    assert isinstance(result.model.linear(0, "qkv"), LowRankLinear)


def test_config_defaults_and_round_trip() -> None:
    assert SvdConfig().target_macs == 0.65
    assert SvdConfig(rank=4).target_macs is None
    uniform = SvdConfig(target_macs=0.5, allocation="uniform")
    for config in (SvdConfig(), SvdConfig(rank=4, weighting="gram"), SvdConfig(energy=0.9), uniform):
        assert SvdConfig.model_validate_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "rank: expected at least 1, got 0"),
        ({"rank": 4, "energy": 0.9}, "got rank and energy"),
        ({"rank": 4, "energy": 0.9, "target_macs": 0.5}, "got rank and energy and target_macs"),
        ({"energy": 1.5}, "energy: expected a share above 0 and at most 1, got 1.5"),
        ({"target_macs": 0.0}, "target_macs: expected a share above 0 and at most 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        SvdConfig.model_validate(settings)
    assert caught.value.hint


def test_a_rank_that_is_full_names_the_linear(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    with pytest.raises(InputError, match="block 0 qkv: expected a rank from 1 to 15, got 16"):
        svd(tiny_model, statistics, rank=16)


def test_unattainable_targets_name_the_range(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    with pytest.raises(InputError, match=r"expected a ratio from 0\.75 to 1, got 0\.5"):
        svd(tiny_model, statistics, target_macs=0.5, rank_multiple=8)


def test_missing_statistics_broken_weights_and_decomposed_models_are_refused(
    tiny_model: VisionTransformer, statistics: Statistics
) -> None:
    with pytest.raises(InputError, match="expected calibration statistics"):
        svd(tiny_model, None, rank=4)
    with pytest.raises(InputError, match="block 0 qkv: expected a dense linear"):
        svd(svd(tiny_model, statistics, rank=4).model, statistics, rank=2)
    with torch.no_grad():
        tiny_model.linear(1, "fc1").weight[0, 0] = torch.nan  # type: ignore[index, operator]
    with pytest.raises(InputError, match="finite"):
        svd(tiny_model, statistics, rank=4)
