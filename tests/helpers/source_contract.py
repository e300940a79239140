"""What every adapter must do, inherited by one class per family: a case is settings of a tiny random model of that family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from vitnla.data.preprocessing import Preprocessing
from vitnla.model import load_checkpoint, save_checkpoint
from vitnla.sources.source_model import SourceModel

Made = tuple[SourceModel, Callable[[Tensor], Tensor]]


def shake(module: nn.Module) -> None:
    """Noise on every weight, so that no gain is one and no bias or token zero: a part that is lost shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


class SourceContract:
    cases: ClassVar[dict[str, dict[str, Any]]] = {}

    def make(self, folder: Path, settings: dict[str, Any]) -> Made:
        """The source as the product loads it, and the library's own answer [B, outputs] to images [B, C, H, W]."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", list(self.cases))

    @torch.inference_mode()
    def test_logits_are_those_of_the_library(self, case: str, tmp_path: Path) -> None:
        source, reference = self.make(tmp_path, self.cases[case])
        config = source.model.config
        images = torch.randn(3, config.channels, config.image_size, config.image_size, generator=torch.Generator().manual_seed(1))
        expected, found = reference(images), source.model(images)
        assert found.shape == expected.shape
        assert float(expected.std()) > 1e-3, "the reference must tell something"
        assert float((expected - found).abs().max() / expected.abs().max()) < 1e-4
        assert float((found[0] - found[1]).abs().max() / found.abs().max()) > 1e-3, "the answer must depend on the image"

        assert len(source.labels) == config.classes == found.shape[1]
        assert len(set(source.labels)) == len(source.labels)
        assert len(source.sha256) == 64
        assert (source.preprocessing.image_size, source.preprocessing.channels) == (config.image_size, config.channels)
        assert Preprocessing.model_validate_json(source.preprocessing.to_json()) == source.preprocessing
        save_checkpoint(source.model, tmp_path / "checkpoint")
        assert torch.equal(load_checkpoint(tmp_path / "checkpoint")(images), found)
