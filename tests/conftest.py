"""Small models and data that many tests share."""

from __future__ import annotations

import pytest
import torch

from vitnla.model import ViTConfig, VisionTransformer
from vitnla.training.initialise import new_model


@pytest.fixture(scope="session")
def tiny_config() -> ViTConfig:
    return ViTConfig.uniform(
        image_size=8, patch_size=4, channels=1, classes=10, dim=16, depth=2, heads=2, mlp_ratio=2.0, pooling="cls+mean"
    )


@pytest.fixture
def tiny_model(tiny_config: ViTConfig) -> VisionTransformer:
    """A two-layer dense ViT with weights of trained-like scale, biases included."""
    model = new_model(tiny_config, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model
