"""The contract of every method, over the registry: a new method is tested by being there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vitnla.calibration.collect import collect
from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.model import VisionTransformer, ViTConfig
from vitnla.model.config import AttentionPoolConfig
from vitnla.model.cost import encoder_macs, encoder_parameters
from vitnla.training.initialise import new_model

PREPROCESSING = Preprocessing(image_size=8, mean=(0.5,), std=(0.25,))
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)


@pytest.fixture
def model() -> VisionTransformer:
    """Wide enough for every method's default settings."""
    config = ViTConfig.uniform(image_size=8, patch_size=4, channels=1, classes=10, dim=48, depth=2, heads=2, layer_scale=True)
    return new_model(config, seed=1).eval()


POOL = AttentionPoolConfig(dim=48, heads=2, mlp_dim=32)
PARTS = {
    "attention-pool": {"pooling": "map", "attention_pool": POOL, "class_token": False},
    "norm-after-pooling": {"pooling": "mean", "final_norm": "pooled", "class_token": False},
    "embed-norm": {"embed_norm": True, "activation": "quick_gelu"},
    "no-final-norm": {"pooling": "mean-all", "final_norm": "none"},
    "distilled": {"pooling": "cls+dist", "registers": 1},
    "remainder": {"image_size": 9, "ignore_remainder": True},
}
UNFOLDABLE = [("pca-slice", "embed-norm"), ("pca-slice", "no-final-norm")]


def same_weights(a: VisionTransformer, b: VisionTransformer) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("name", list(METHODS))
def test_contract(name: str, model: VisionTransformer) -> None:
    method = METHODS[name]
    config = method.config()
    statistics = collect(model, IMAGES, PREPROCESSING) if method.needs_statistics(config) else None
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    result = method.apply(model, statistics, config)

    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    old, new = ({tensor.data_ptr() for tensor in m.state_dict().values()} for m in (model, result.model))
    assert not old & new, "training the new model would change the old one"
    assert [(row.block, row.linear) for row in result.layers] == model.linear_names()
    assert all(np.isfinite(row.relative_error) and 0 <= row.retained_energy <= 1 for row in result.layers)
    for cost in (encoder_macs, encoder_parameters):
        assert cost(result.model.config, model.config).ratio <= 1 or method.kind == "online"
    assert sum(row.macs for row in result.layers) == encoder_macs(result.model.config, model.config).model
    assert sum(row.parameters for row in result.layers) == encoder_parameters(result.model.config, model.config).model
    assert not result.model.training
    with torch.inference_mode():
        logits = result.model(torch.from_numpy(PREPROCESSING(IMAGES)))
    assert logits.shape == (8, 10)
    assert torch.isfinite(logits).all()
    assert same_weights(method.apply(model, statistics, config).model, result.model)


@pytest.mark.parametrize(
    ("name", "part"), [*((name, part) for name in METHODS for part in ("attention-pool", "embed-norm")), UNFOLDABLE[1]]
)
def test_every_part_of_a_source_model_is_kept_or_refused(name: str, part: str) -> None:
    shape = {"image_size": 8, "patch_size": 4, "channels": 1, "classes": 10, "dim": 48, "depth": 1, "heads": 2}
    dense = ViTConfig.uniform(**(shape | PARTS[part]))
    preprocessing = PREPROCESSING.model_copy(update={"image_size": dense.image_size})
    model = new_model(dense, seed=1).eval()
    method = METHODS[name]
    config = method.config()
    statistics = collect(model, IMAGES, preprocessing) if method.needs_statistics(config) else None
    if (name, part) in UNFOLDABLE:
        with pytest.raises(InputError, match=r"embed_norm|final_norm"):
            method.apply(model, statistics, config)
        return
    result = method.apply(model, statistics, config)
    with torch.inference_mode():
        logits = result.model(torch.from_numpy(preprocessing(IMAGES)))
    assert logits.shape == (8, 10)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("part", [part for part in PARTS if ("pca-slice", part) not in UNFOLDABLE])
def test_a_full_rotation_of_the_stream_changes_no_logit(part: str) -> None:
    shape = {"image_size": 8, "patch_size": 4, "channels": 1, "classes": 10, "dim": 48, "depth": 2, "heads": 2}
    model = new_model(ViTConfig.uniform(**(shape | PARTS[part])), seed=1).eval()
    preprocessing = PREPROCESSING.model_copy(update={"image_size": model.config.image_size})
    method = METHODS["pca-slice"]
    statistics = collect(model, IMAGES, preprocessing)
    images = torch.from_numpy(preprocessing(IMAGES))
    with torch.inference_mode():
        found = method.apply(model, statistics, method.config(dim=48)).model(images)
        torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(METHODS))
def test_config_is_a_json_round_trip_and_refuses_unknown_keys(name: str) -> None:
    config = METHODS[name].config()
    assert type(config).model_validate_json(config.to_json()) == config
    with pytest.raises(ValueError, match="colour"):
        type(config).model_validate({"colour": "red"})


def test_none_changes_nothing(model: VisionTransformer) -> None:
    result = METHODS["none"].apply(model, None, METHODS["none"].config())
    assert result.model.config == model.config
    assert same_weights(result.model, model)
    assert all((row.rank, row.relative_error) == (None, 0.0) for row in result.layers)


def test_an_unknown_method_lists_the_choices() -> None:
    with pytest.raises(InputError, match="unknown method 'svdd'") as caught:
        METHODS["svdd"]
    assert ", ".join(sorted(METHODS)) in caught.value.hint
