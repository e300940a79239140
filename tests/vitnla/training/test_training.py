"""Training: it learns, it resumes exactly, and it refuses what it cannot go on with."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.sources.load import load_model
from vitnla.training.augment import augment, drop_tokens
from vitnla.training.config import PRESETS, Preset, TrainConfig
from vitnla.training.initialise import new_model, sine_cosine_positions
from vitnla.training.loop import Progress, read_log
from vitnla.training.optimizer import learning_rate
from vitnla.training.run import statistics_of, train_on
from vitnla.training.supervised import train

PRESET = Preset(
    patch_size=4, dim=16, depth=1, heads=2,
    train=TrainConfig(epochs=3, batch_size=32, full_token_epochs=1, ema_decay=0.5, shift=0, flip=False, label_smoothing=0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Two classes that a linear model could tell apart: bright above, or bright below."""
    rng = np.random.default_rng(0)

    def make(count: int) -> Split:
        labels = rng.integers(0, 2, count)
        images = rng.integers(0, 60, (count, 8, 8, 1), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[4 * label : 4 * label + 4] += 150
        return Split(images, labels)

    return Dataset("halves", ("above", "below"), {"train": make(256), "validation": make(64), "test": make(64)})


def test_training_learns_and_leaves_a_source_model(data: Dataset, tmp_path: Path) -> None:
    result = train_on(data, PRESET, tmp_path / "run", Progress())
    assert result.test_top1 > 0.9
    source = load_model(str(tmp_path / "run"))
    assert source.labels == ("above", "below")
    log = read_log(tmp_path / "run")
    assert [entry.tokens for entry in log] == [3, 3, 5]
    assert result.validation_top1 == max(entry.validation_top1 for entry in log)
    assert log[-1].train_loss < log[0].train_loss


def test_interrupted_training_resumes_to_the_same_weights(data: Dataset, tmp_path: Path) -> None:
    shape, pre = PRESET.model(8, 1, 2), statistics_of(data.split("train"))
    splits = data.split("train"), data.split("validation")
    train(shape, PRESET.train, pre, *splits, tmp_path / "whole")

    def stop(log: object, remaining_s: float) -> None:
        assert remaining_s > 0
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(shape, PRESET.train, pre, *splits, tmp_path / "halved", Progress(on_epoch=stop))
    assert len(read_log(tmp_path / "halved")) == 1
    train(shape, PRESET.train, pre, *splits, tmp_path / "halved")
    whole, halved = (load_file(tmp_path / run / "state" / "state.safetensors") for run in ("whole", "halved"))
    assert whole.keys() == halved.keys()
    for name, tensor in whole.items():
        torch.testing.assert_close(halved[name], tensor, rtol=1e-4, atol=1e-5)
    assert [entry.epoch for entry in read_log(tmp_path / "halved")] == [1, 2, 3]


def test_other_settings_do_not_resume(data: Dataset, tmp_path: Path) -> None:
    train_on(data, PRESET.with_training(epochs=1), tmp_path, Progress())
    with pytest.raises(InputError, match=r"other settings \(train differs\)"):
        train_on(data, PRESET.with_training(epochs=1, seed=7), tmp_path, Progress())


def test_diverging_training_says_so(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitnla.training.supervised.augment", lambda images, config, generator: images * float("nan"))
    with pytest.raises(InputError, match="loss became nan") as caught:
        train_on(data, PRESET, tmp_path, Progress())
    assert "--lr" in caught.value.hint


def test_data_without_a_train_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown split"):
        train_on(Dataset("empty", ("a",), {}), PRESET, tmp_path, Progress())


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"lr: .*greater than 0.*got -1"):
        PRESET.with_training(lr=-1)


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_round_trip_and_build(name: str) -> None:
    preset = PRESETS[name]
    assert Preset.model_validate_json(preset.to_json()) == preset
    assert preset.model(28, 1, 10).tokens > 1


def test_learning_rate_warms_up_and_decays() -> None:
    config = TrainConfig(epochs=10, lr=1.0, warmup_epochs=2)
    rates = [learning_rate(config, epoch / 10) for epoch in range(101)]
    assert rates[0] < 0.01
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 20
    assert rates[-1] == pytest.approx(0.01)
    assert all(a >= b for a, b in itertools.pairwise(rates[20:]))


def test_mimetic_start_is_near_the_identities() -> None:
    model = new_model(PRESETS["demo"].model(28, 1, 10), seed=0)
    q, k, v = model.linear(0, "qkv").weight.detach().split(192)
    eye = torch.eye(192)
    whole = v.T @ model.linear(0, "proj").weight.detach().T
    assert torch.nn.functional.cosine_similarity(whole.flatten(), -eye.flatten(), dim=0) > 0.5
    head = q[:64].T @ k[:64]
    assert torch.trace(head) / 192 > 0.3
    assert sine_cosine_positions(7, 192).shape == (49, 192)


def test_augmentation_moves_but_keeps_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(64, 1, 9, 9)
    images[:, :, 4, 4] = 1.0
    before = images.clone()
    changed = augment(images, TrainConfig(shift=2, flip=True, erase=0.0), generator)
    assert torch.equal(images, before)
    assert torch.equal(changed.sum((1, 2, 3)), torch.ones(64))
    rows = {int(position) for position in changed.amax(3).argmax(2).flatten()}
    assert rows == {2, 3, 4, 5, 6}


def test_erasing_blanks_a_rectangle_in_its_share_of_images() -> None:
    generator = torch.Generator().manual_seed(0)
    config = TrainConfig(shift=0, flip=False, erase=0.5)
    changed = augment(torch.arange(2.0).repeat(500, 1, 10, 5), config, generator)
    share = (changed.sum((1, 2, 3)) < 50).float().mean()
    assert 0.4 < share < 0.6


def test_dropped_tokens_keep_the_prefix_and_lie_among_the_patches() -> None:
    tokens = torch.arange(10.0).repeat(4, 1)[..., None]
    kept = drop_tokens(tokens, 2, 0.5, torch.Generator().manual_seed(0))[..., 0]
    assert kept.shape == (4, 6)
    assert torch.equal(kept[:, :2], tokens[:, :2, 0])
    for row in kept[:, 2:].int().tolist():
        assert len(set(row)) == 4
        assert min(row) >= 2
    assert drop_tokens(tokens, 2, 1.0, torch.Generator()) is tokens


def test_log_is_json_lines(data: Dataset, tmp_path: Path) -> None:
    train_on(data, PRESET.with_training(epochs=1), tmp_path, Progress())
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["device"] in {"cpu", "cuda"}
