"""The cholesky method: what it promises about fc2's outputs, widths, costs and its report."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from vitnla.calibration.collect import collect
from vitnla.calibration.statistics import Statistics
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.linalg.moments import Affine
from vitnla.methods import METHODS
from vitnla.methods.cholesky.apply import CholeskyConfig
from vitnla.methods.parts.model_edit import Dense
from vitnla.methods.parts.narrow_mlp import narrow_mlp
from vitnla.methods.registry import Decomposition
from vitnla.methods.svd.apply import SvdConfig
from vitnla.model import VisionTransformer
from vitnla.model.cost import encoder_macs
from vitnla.model.layers import activation

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
MLP = 32


@pytest.fixture
def statistics(tiny_model: VisionTransformer) -> Statistics:
    return collect(tiny_model, IMAGES, PREPROCESSING)


def cholesky(model: VisionTransformer, statistics: Statistics | None, **settings: object) -> Decomposition:
    return METHODS["cholesky"].apply(model, statistics, CholeskyConfig.model_validate({"width_multiple": 1, **settings}))


def logits(model: VisionTransformer) -> Tensor:
    with torch.inference_mode():
        return model(torch.from_numpy(PREPROCESSING(IMAGES)))


def hidden(model: VisionTransformer, block: int) -> Tensor:
    """What fc2 of a block sees in the dense model, float64 [tokens, mlp_dim]."""
    seen = []
    hook = model.linear(block, "fc2").register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    logits(model)
    hook.remove()
    return seen[0].reshape(-1, MLP).double()


def dense(change: object) -> Dense:
    assert isinstance(change, Affine)
    return change


@pytest.mark.parametrize("width", [1, 5, 17, 31])
def test_no_other_fc2_of_the_units_kept_loses_less(tiny_model: VisionTransformer, statistics: Statistics, width: int) -> None:
    mlp = narrow_mlp(tiny_model, 1, statistics, damping=1e-12)
    x, fc2 = hidden(tiny_model, 1), mlp.curve.second
    output = x @ fc2.weight.detach().double().T + fc2.bias.detach().double()
    kept = mlp.curve.order[:width].sort().values
    features = torch.cat([x[:, kept], torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    best = torch.linalg.lstsq(features, output).solution
    least = float((features @ best - output).square().sum(1).mean())
    new = dense(mlp.at(width).change.linears["fc2"])
    found = float((x[:, kept] @ new.weight.T + new.bias - output).square().sum(1).mean())
    assert found == pytest.approx(least, rel=1e-6)
    assert float(mlp.curve.errors[width]) == pytest.approx(least, rel=1e-6)
    assert mlp.at(width).errors["fc2"] == pytest.approx((least / float(mlp.curve.errors[0])) ** 0.5, rel=1e-6)


def test_the_losses_fall_from_the_variance_of_the_output_to_zero(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    mlp = narrow_mlp(tiny_model, 0, statistics)
    output = hidden(tiny_model, 0) @ mlp.curve.second.weight.detach().double().T
    assert float(mlp.curve.errors[0]) == pytest.approx(float(output.var(0, correction=0).sum()), rel=1e-9)
    assert float(mlp.curve.errors[MLP]) == 0
    assert (mlp.curve.errors.diff() <= 0).all()
    assert torch.equal(mlp.curve.losses, statistics.linears[0, "fc2"].sensitivity * mlp.curve.errors)


def test_units_that_others_make_up_for_cost_nothing(tiny_model: VisionTransformer) -> None:
    """Each unit has a twin of another weight in fc2, and one unit writes nothing: half of them is enough."""
    with torch.no_grad():
        for block in tiny_model.blocks:
            for tensor in (block.mlp.fc1.weight, block.mlp.fc1.bias):
                tensor[MLP // 2 :] = tensor[: MLP // 2]
            block.mlp.fc2.weight[:, 3] = 0
    statistics = collect(tiny_model, IMAGES, PREPROCESSING)
    result = cholesky(tiny_model, statistics, keep=0.5, damping=1e-10)
    assert [block.mlp_dim for block in result.model.config.blocks] == [MLP // 2] * 2
    assert torch.allclose(logits(result.model), logits(tiny_model), atol=1e-4)
    assert all(row.relative_error < 1e-4 and row.retained_energy == pytest.approx(1) for row in result.layers)


def test_the_mean_output_is_kept_exactly_and_fc1_is_a_part_of_the_old_one(
    tiny_model: VisionTransformer, statistics: Statistics
) -> None:
    mlp = narrow_mlp(tiny_model, 0, statistics)
    new = mlp.at(7).change.linears
    fc1, fc2, kept = dense(new["fc1"]), dense(new["fc2"]), mlp.curve.order[:7].sort().values
    assert torch.equal(fc1.weight, mlp.curve.first.weight[kept])
    mean = statistics.linears[0, "fc2"].mean
    expected = mlp.curve.second.weight.double() @ mean + mlp.curve.second.bias.double()
    assert torch.allclose(fc2.weight @ mean[kept] + fc2.bias, expected, atol=1e-10)


def test_the_report_is_what_the_new_model_does(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    result = cholesky(tiny_model, statistics, keep=0.25)
    rows = {(row.block, row.linear): row for row in result.layers}
    fc1, fc2 = rows[0, "fc1"], rows[0, "fc2"]
    assert (fc1.shape, fc1.dense_shape, fc2.shape, fc2.dense_shape) == ((8, 16), (MLP, 16), (16, 8), (16, MLP))
    assert fc1.narrowed
    assert fc1.rank is None
    assert fc1.relative_error == fc2.relative_error
    assert rows[0, "qkv"].relative_error == rows[0, "proj"].relative_error == 0
    assert not rows[0, "qkv"].narrowed
    block, new, x = tiny_model.blocks[0], result.model.blocks[0], hidden(tiny_model, 0)
    with torch.no_grad():
        old = block.mlp.fc2(x.float()).double()
        images = torch.from_numpy(PREPROCESSING(IMAGES))
        tokens = tiny_model.embed(images)
        seen = block.norm2(tokens + block.attn(block.norm1(tokens)))
        found = new.mlp.fc2(activation("gelu", new.mlp.fc1(seen))).reshape(-1, 16).double()
    measured = float((found - old).norm() / (old - old.mean(0)).norm())
    assert measured > 0.01
    assert fc2.relative_error == pytest.approx(measured, rel=1e-3)


@pytest.mark.parametrize("allocation", ["uniform", "knapsack"])
@pytest.mark.parametrize("target", [0.55, 0.8])
def test_the_target_is_met(tiny_model: VisionTransformer, statistics: Statistics, allocation: str, target: float) -> None:
    result = cholesky(tiny_model, statistics, target_macs=target, allocation=allocation)
    macs = encoder_macs(result.model.config, tiny_model.config)
    assert target - 0.02 < macs.ratio <= target
    assert sum(row.macs for row in result.layers) == macs.model


def test_uniform_widths_are_alike_and_knapsack_loses_less(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    mlps = [narrow_mlp(tiny_model, block, statistics) for block in (0, 1)]

    def widths(allocation: str) -> list[int]:
        result = cholesky(tiny_model, statistics, target_macs=0.7, allocation=allocation)
        return [block.mlp_dim for block in result.model.config.blocks]

    alike, chosen = widths("uniform"), widths("knapsack")
    assert abs(alike[0] - alike[1]) <= 1
    assert chosen != alike
    losses = [sum(float(mlp.curve.losses[width]) for mlp, width in zip(mlps, pair, strict=True)) for pair in (chosen, alike)]
    assert losses[0] < losses[1]


def test_widths_are_multiples(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    result = cholesky(tiny_model, statistics, keep=0.6, width_multiple=8)
    assert [block.mlp_dim for block in result.model.config.blocks] == [16, 16]  # 19.2 is nearer to 16 than to 24
    assert cholesky(tiny_model, statistics, keep=0.01, width_multiple=8).model.config.blocks[0].mlp_dim == 8
    assert cholesky(tiny_model, statistics, keep=0.9, width_multiple=24).model.config.blocks[0].mlp_dim == 24
    assert cholesky(tiny_model, statistics, keep=1.0, width_multiple=24).model.config.blocks[0].mlp_dim == 24


def test_more_units_bring_the_logits_closer_and_all_of_them_change_nothing(
    tiny_model: VisionTransformer, statistics: Statistics
) -> None:
    old = logits(tiny_model)
    errors = [float((logits(cholesky(tiny_model, statistics, keep=keep).model) - old).norm()) for keep in (0.2, 0.5, 0.9, 1.0)]
    assert errors[0] > errors[1] > errors[2] > errors[3] == 0


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_scales_of_fc2_change_no_choice(tiny_model: VisionTransformer, statistics: Statistics, scale: float) -> None:
    before = narrow_mlp(tiny_model, 0, statistics).curve.order.tolist()
    with torch.no_grad():
        tiny_model.linear(0, "fc2").weight.mul_(scale)  # type: ignore[operator, union-attr]
    mlp = narrow_mlp(tiny_model, 0, statistics)
    assert mlp.curve.order.tolist() == before
    assert 0 < mlp.at(8).errors["fc2"] < 1


def test_config_defaults_and_round_trip() -> None:
    assert CholeskyConfig().target_macs == 0.7
    assert CholeskyConfig(keep=0.5).target_macs is None
    for config in (CholeskyConfig(), CholeskyConfig(keep=0.5), CholeskyConfig(target_macs=0.5, allocation="uniform")):
        assert CholeskyConfig.model_validate_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0.5, "target_macs": 0.5}, "expected one of keep and target_macs, got both"),
        ({"keep": 0.0}, "keep: expected a share above 0 and at most 1, got 0"),
        ({"target_macs": 1.5}, "target_macs: expected a share above 0 and at most 1, got 1.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        CholeskyConfig.model_validate(settings)
    assert caught.value.hint


def test_what_cannot_be_done_is_refused(tiny_model: VisionTransformer, statistics: Statistics) -> None:
    with pytest.raises(InputError, match="cholesky: expected calibration statistics, got none"):
        cholesky(tiny_model, None)
    with pytest.raises(InputError, match=r"expected a ratio from 0\.516 to 1, got 0\.3"):
        cholesky(tiny_model, statistics, target_macs=0.3)
    low_rank = METHODS["svd"].apply(tiny_model, statistics, SvdConfig(rank=4)).model
    with pytest.raises(InputError, match="block 0 fc1: expected a dense linear, got a low-rank one"):
        cholesky(low_rank, statistics)
    with torch.no_grad():
        tiny_model.linear(1, "fc2").weight[0, 0] = torch.nan  # type: ignore[index, operator]
    with pytest.raises(InputError, match="finite"):
        cholesky(tiny_model, statistics)
