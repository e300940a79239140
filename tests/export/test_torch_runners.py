"""The runners that need torch."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import export.torch_runners
from export.torch_runners import TorchCompileRunner, TorchRunner
from runtime.bundle.schema import Bundle
from runtime.runners.base import RunOptions
from runtime.runners.registry import runner
from vitnla.common.errors import InputError, MissingDependencyError


@pytest.fixture(autouse=True)
def _keep_threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_both_are_registered() -> None:
    assert isinstance(runner("torch"), TorchRunner)
    assert isinstance(runner("torch-compile"), TorchCompileRunner)


def test_eager_torch_gives_the_reference_logits(tiny_low_rank_bundle: Bundle) -> None:
    session = TorchRunner().load(tiny_low_rank_bundle, RunOptions(threads=1))
    images, logits = tiny_low_rank_bundle.reference()
    np.testing.assert_allclose(session.run(images), logits, atol=1e-5)
    assert session.run(images).dtype == np.float32
    facts = session.facts()
    assert (facts["threads"], facts["precision"], facts["compiled"]) == (1, "fp32", False)
    assert facts["version"] == torch.__version__


@pytest.mark.slow
@pytest.mark.skipif(not TorchCompileRunner().availability().ok, reason=TorchCompileRunner().availability().reason)
def test_compiled_torch_gives_the_reference_logits(tiny_low_rank_bundle: Bundle) -> None:
    session = TorchCompileRunner().load(tiny_low_rank_bundle, RunOptions(threads=1, batch=8))
    images, logits = tiny_low_rank_bundle.reference()
    np.testing.assert_allclose(session.run(images), logits, atol=1e-4)
    assert session.facts()["compiled"]


def test_without_a_compiler_it_explains_itself(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.torch_runners.shutil, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependencyError, match=r"'torch-compile' cannot run here: no C\+\+ compiler") as caught:
        TorchCompileRunner().load(tiny_bundle, RunOptions(threads=1))
    assert "apt install g++" in caught.value.hint


def test_a_bundle_without_its_checkpoint_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle"))
    shutil.rmtree(folder / "checkpoint")
    with pytest.raises(InputError, match="no checkpoint folder"):
        TorchRunner().load(Bundle(folder, tiny_bundle.manifest), RunOptions(threads=1))
