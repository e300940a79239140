"""Distillation: what is learnt, from which images, and that an interrupted run ends where a whole one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from export.bundle.plan import ExportOptions
from export.pipeline import ExportRequest, export_model
from runtime.bundle.schema import Bundle
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.methods.registry import Decomposition
from vitnla.model.checkpoint import save_checkpoint
from vitnla.sources.description import write_description
from vitnla.sources.load import load_model
from vitnla.sources.source_model import SourceModel
from vitnla.training.config import DistillConfig
from vitnla.training.distill import distill
from vitnla.training.distill_loss import answer, block_difference, block_loss, distill_step, logit_loss
from vitnla.training.loop import Progress, read_log
from vitnla.training.optimizer import make_adamw

CONFIG = DistillConfig(epochs=3, batch_size=8, lr=3e-3, precision="fp32", ema_decay=0.5, shift=0, flip=False)


@pytest.fixture
def student(tiny_source: SourceModel, tiny_low_rank: Decomposition) -> SourceModel:
    return replace(tiny_source, spec="student", sha256="6" * 64, model=tiny_low_rank.model)


@pytest.fixture
def data(tiny_source: SourceModel, tiny_data: Dataset) -> Dataset:
    """The tiny data with a train split, every split labelled by the teacher: a better imitation is a better accuracy."""
    rng = np.random.default_rng(8)
    splits = {**tiny_data.splits, "train": Split(rng.integers(0, 256, (48, 8, 8, 1), np.uint8), np.zeros(48, np.int64))}
    with torch.inference_mode():
        for name, split in splits.items():
            logits = tiny_source.model(torch.from_numpy(tiny_source.preprocessing(split.images)))
            splits[name] = Split(split.images, logits.argmax(1).numpy())
    return Dataset("tiny", tiny_data.labels, splits)


def test_equal_answers_have_no_loss(tiny_source: SourceModel) -> None:
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given = answer(tiny_source.model, images)
        torch.testing.assert_close(given.logits, tiny_source.model(images))
    assert float(logit_loss(given.logits, given.logits, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(block_loss(given.blocks, given.blocks)) == 0
    mean = [tokens.mean((0, 1)).expand_as(tokens) for tokens in given.blocks]
    assert float(block_loss(mean, given.blocks)) == pytest.approx(1, rel=1e-5)


def test_logit_loss_is_the_scaled_divergence() -> None:
    student, teacher = torch.tensor([[1.0, 2.0, 0.5]]), torch.tensor([[0.0, 3.0, 1.0]])
    p, q = (teacher / 4).softmax(-1), (student / 4).softmax(-1)
    assert float(logit_loss(student, teacher, 4.0)) == pytest.approx(16 * float((p * (p / q).log()).sum()), rel=1e-5)


def test_a_step_moves_the_student_alone(tiny_source: SourceModel, student: SourceModel) -> None:
    images = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    before = [tensor.clone() for tensor in tiny_source.model.state_dict().values()]
    optimizers = [make_adamw(student.model, student.model.parameters(), CONFIG)]
    for group in optimizers[0].param_groups:
        group["lr"] = 3e-3
    losses = [float(distill_step(student.model, tiny_source.model, optimizers, images, CONFIG)) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(old, new) for old, new in zip(before, tiny_source.model.state_dict().values(), strict=True))


def test_blocks_of_other_widths_are_not_compared(tiny_source: SourceModel) -> None:
    config = tiny_source.model.config
    assert block_difference(config, config) is None
    assert "depth is 1" in str(block_difference(config.model_copy(update={"blocks": config.blocks[:1]}), config))
    assert "width is 8" in str(block_difference(config.model_copy(update={"dim": 8}), config))
    assert "norm" in str(block_difference(config.model_copy(update={"norm": "rms"}), config))


def test_the_loss_falls_and_only_training_images_are_learnt_from(
    tiny_source: SourceModel, student: SourceModel, data: Dataset, tmp_path: Path
) -> None:
    # Weights that saw a validation or test image would differ when these images do.
    other = {name: Split(255 - data.splits[name].images, data.splits[name].labels) for name in ("validation", "test")}
    result = distill(tiny_source, student, data, CONFIG, tmp_path / "a", Progress())
    distill(tiny_source, student, Dataset("tiny", data.labels, {**data.splits, **other}), CONFIG, tmp_path / "b", Progress())
    log = read_log(tmp_path / "a")
    assert log[-1].train_loss < log[0].train_loss
    assert (result.run.split, result.run.images, result.run.epochs) == ("train", 48, 3)
    assert result.teacher_test_top1 == 1.0
    assert result.validation_top1 >= result.student_validation_top1
    one, two = (load_file(tmp_path / run / "state" / "state.safetensors") for run in ("a", "b"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items() if name.startswith("model."))


def test_an_interrupted_run_ends_where_a_whole_one_does(
    tiny_source: SourceModel, student: SourceModel, data: Dataset, tmp_path: Path
) -> None:
    distill(tiny_source, student, data, CONFIG, tmp_path / "whole", Progress())

    def stop(log: object, remaining_s: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(tiny_source, student, data, CONFIG, tmp_path / "halved", Progress(on_epoch=stop))
    distill(tiny_source, student, data, CONFIG, tmp_path / "halved", Progress())
    whole, halved = (load_file(tmp_path / run / "state" / "state.safetensors") for run in ("whole", "halved"))
    for name, tensor in whole.items():
        torch.testing.assert_close(halved[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    with pytest.raises(InputError, match="other settings"):
        distill(tiny_source, student, data, CONFIG.changed({"temperature": 4.0}), tmp_path / "halved", Progress())


def test_without_a_train_split_it_says_what_it_learns_from(
    tiny_source: SourceModel, student: SourceModel, tiny_data: Dataset, tmp_path: Path
) -> None:
    notes: list[str] = []
    result = distill(
        tiny_source, student, tiny_data, CONFIG.changed({"epochs": 1}), tmp_path / "run", Progress(on_note=notes.append)
    )
    assert result.run.split == "calibration"
    assert any("has no train split" in note for note in notes)
    with pytest.raises(InputError, match="at most 24 training images"):
        distill(tiny_source, student, tiny_data, CONFIG, tmp_path / "more", Progress(), images=25)


def test_models_that_do_not_belong_together_are_refused(
    tiny_source: SourceModel, student: SourceModel, data: Dataset, tmp_path: Path
) -> None:
    blurred = student.preprocessing.model_copy(update={"mean": (0.9,)})
    with pytest.raises(InputError, match="preprocess images differently"):
        distill(tiny_source, replace(student, preprocessing=blurred), data, CONFIG, tmp_path / "run", Progress())
    with pytest.raises(InputError, match="different classes"):
        distill(tiny_source, replace(student, labels=tuple("zyxwvutsrq")), data, CONFIG, tmp_path / "run", Progress())
    assert not (tmp_path / "run").exists()


def test_a_distilled_student_is_exported_relative_to_its_dense_model(
    tiny_source: SourceModel, tiny_low_rank: Decomposition, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Teacher folder -> svd bundle -> distil -> bundle: method, costs and agreement remain those against the teacher."""
    folder = tmp_path / "dense"
    save_checkpoint(tiny_source.model, folder)
    write_description(folder, tiny_source.preprocessing, tiny_source.labels)
    monkeypatch.setattr("export.pipeline.load_data", lambda spec, class_map=None: data)

    def export(model: str, method: str, settings: dict[str, float], name: str) -> Bundle:
        request = ExportRequest(model, "tiny", method, settings, tmp_path / name, ExportOptions(), "test")
        return export_model(request, lambda step: None)

    cut = export(str(folder), "svd", {"target_macs": 0.6, "rank_multiple": 2}, "cut")
    teacher, given = load_model(str(folder)), load_model(str(cut.folder))
    result = distill(teacher, given, data, CONFIG.changed({"epochs": 1}), tmp_path / "run", Progress())
    again = export(str(tmp_path / "run"), "none", {}, "again").manifest
    assert (again.method, again.macs, again.source_sha256) == ("svd", cut.manifest.macs, teacher.sha256)
    assert again.distillation == result.run
    assert again.accuracy.dense_top1 == result.teacher_test_top1
    assert again.accuracy.top1 == pytest.approx(result.test_top1)
