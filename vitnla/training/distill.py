"""A complete distillation: from two models and a data set to a described checkpoint; the test split is read once, at the end."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from vitnla.common.errors import InputError
from vitnla.common.measures import Distillation
from vitnla.data.dataset import Dataset, Split
from vitnla.model.checkpoint import write_checkpoint
from vitnla.sources.description import write_description
from vitnla.sources.load import load_model
from vitnla.sources.source_logits import source_logits
from vitnla.sources.source_model import SourceModel
from vitnla.training.augment import augment
from vitnla.training.config import DistillConfig
from vitnla.training.distill_loss import block_difference, distill_step
from vitnla.training.loop import Job, Progress, default_device, fit, read_log, top1_of
from vitnla.training.optimizer import make_adamw
from vitnla.training.state import check_run_folder


@dataclass(frozen=True)
class DistillResult:
    """The checkpoint's folder and the accuracies, as fractions; `student_` are those of the student before distillation."""

    folder: Path
    run: Distillation
    validation_top1: float
    student_validation_top1: float
    test_top1: float
    student_test_top1: float
    teacher_test_top1: float


@dataclass(frozen=True)
class Taught:
    """A student after training, before any use of the test split; accuracies are fractions, on validation."""

    run: Distillation
    validation_top1: float
    student_validation_top1: float


def distill(
    teacher: SourceModel, student: SourceModel, data: Dataset, config: DistillConfig, folder: Path, progress: Progress,
    images: int | None = None,
) -> DistillResult:  # fmt: skip
    """Run `teach`, then evaluate the student before and after, and the teacher, on the test split, once.

    Args and errors are those of `teach`.
    """
    taught = teach(teacher, student, data, config, folder, progress, images)
    data = data.for_model(student.labels)
    return DistillResult(
        folder=folder, run=taught.run, validation_top1=taught.validation_top1,
        student_validation_top1=taught.student_validation_top1,
        test_top1=_top1("the distilled student", load_model(str(folder)), data, "test", progress),
        student_test_top1=_top1("the student as it was", student, data, "test", progress),
        teacher_test_top1=_top1("the teacher", teacher, data, "test", progress),
    )  # fmt: skip


def teach(
    teacher: SourceModel, student: SourceModel, data: Dataset, config: DistillConfig, folder: Path, progress: Progress,
    images: int | None = None,
) -> Taught:  # fmt: skip
    """Train `student` to match the outputs of `teacher`, or resume an interrupted run of the same settings in `folder`.

    No labels are used except those of the validation split, which select the epoch. `teacher` and `student` do not change.

    Args:
        teacher: the dense model.
        student: the decomposed model.
        data: its train split is used for training, or where it has none its calibration split.
        config: training settings.
        folder: the folder for the checkpoint, with a log and the state of the run.
        progress: callbacks.
        images: number of training images to use; `None` is all.

    Raises:
        InputError: the two models take other images or give other classes, the data fit neither, or as `loop.fit`.
    """
    _check_pair(teacher, student)
    data = data.for_model(student.labels)
    check_run_folder(folder)
    split, training = _training_images(data, images, progress)
    if config.block_weight and (difference := block_difference(student.model.config, teacher.model.config)):
        progress.on_note(f"block outputs cannot be compared ({difference}): learning from the logits alone")
    if student.origin is None:
        progress.on_note(f"'{student.spec}' does not say which dense model it was made from: it counts as a model of its own")
    before = _top1("the student", student, data, "validation", progress)
    _fit(teacher, student, training, data.split("validation"), before, config, folder, progress)
    kept = [entry for entry in read_log(folder) if entry.best]
    if not kept:
        progress.on_note("no epoch surpassed the student as it was on the validation images, so that is what was kept")
        write_checkpoint(student.model, folder)
    run = Distillation(
        teacher=teacher.spec, teacher_sha256=teacher.sha256, data=data.name, split=split, images=len(training),
        epochs=config.epochs, best_epoch=kept[-1].epoch if kept else 0, settings=config.model_dump(mode="json"),
    )  # fmt: skip
    origin = student.origin and student.origin.model_copy(update={"distillation": run})
    write_description(folder, student.preprocessing, student.labels, origin)
    return Taught(run, kept[-1].validation_top1 if kept else before, before)


def _fit(
    teacher: SourceModel, student: SourceModel, training: Split, validation: Split, before: float,
    config: DistillConfig, folder: Path, progress: Progress,
) -> None:  # fmt: skip
    device = default_device()
    guide, model = (copy.deepcopy(source.model).to(device) for source in (teacher, student))
    optimizers: list[Optimizer] = [make_adamw(model, model.parameters(), config)]

    def step(epoch: int, batch: Tensor, generator: torch.Generator) -> Tensor:
        # Batch by batch, because large images do not fit into memory as float32.
        pixels = torch.from_numpy(student.preprocessing(training.take(batch.cpu().numpy()).images)).to(device)
        return distill_step(model, guide, optimizers, augment(pixels, config, generator), config)

    settings = {
        "distillation": config.model_dump(mode="json"), "teacher": teacher.sha256, "student": student.sha256,
        "data": training.fingerprint(),
    }  # fmt: skip
    job = Job(
        config=config, settings=settings, images=len(training), step=step, best_top1=before,
        validate=top1_of(student.preprocessing, validation, device), tokens=lambda epoch: model.config.tokens,
    )  # fmt: skip
    fit(job, model, optimizers, folder, progress)


def _training_images(data: Dataset, count: int | None, progress: Progress) -> tuple[str, Split]:
    """Return the training images and their split's name; never validation or test images."""
    split = "train" if "train" in data.splits else "calibration"
    training = data.split(split)
    if split != "train":
        count_of = f"{len(training):,} calibration images, which are training images too"
        progress.on_note(f"data '{data.name}' has no train split: distilling on its {count_of}")
    if count is not None and count > len(training):
        raise InputError(
            f"expected at most {len(training):,} training images, the '{split}' split of data '{data.name}', got {count:,}",
            "give fewer --images, or data with more training images, such as fashion-mnist:DIR",
        )
    return split, training if count is None else training.head(count)


def _check_pair(teacher: SourceModel, student: SourceModel) -> None:
    """Refuse two models that take different images or have different classes."""
    hint = "choose a student that was made from this teacher"
    if student.preprocessing != teacher.preprocessing:
        raise InputError(f"student '{student.spec}' and teacher '{teacher.spec}' preprocess images differently", hint)
    if student.labels != teacher.labels:
        raise InputError(f"student '{student.spec}' and teacher '{teacher.spec}' have different classes", hint)


def _top1(what: str, source: SourceModel, data: Dataset, name: str, progress: Progress) -> float:
    """Return the top-1 accuracy of a model on a split; results of earlier evaluations are cached."""
    split = data.split(name)

    def count(done: int, total: int) -> None:
        progress.on_count(f"{name} accuracy of {what}", done, total)

    logits = source_logits(source, split, count, default_device())
    return float((split.classes.scored(logits).argmax(1) == split.labels).mean())
