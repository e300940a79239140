"""`vitdeploy distill`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.bundles import ClassMap
from export.cli.output import Json, assignments, emit, say


def distill(
    student: Annotated[str, typer.Option(help="The decomposed model: a bundle or checkpoint folder.")],
    teacher: Annotated[
        str, typer.Option(help="The dense model: demo, a folder, hf:FOLDER_OR_ID, timm:NAME[@FILE] or torchvision:NAME[@FILE].")
    ] = "demo",
    data: Annotated[str, typer.Option(help="Data SPEC (docs/data.md); weights are fitted on its train split.")] = "demo",
    class_map: ClassMap = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder; an interrupted run there is resumed.")] = Path(
        "artifacts/distill"
    ),
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training images. Default: 3.")] = None,
    images: Annotated[int | None, typer.Option(min=2, help="Only the first so many training images. Default: all.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order and the augmentation.")] = 0,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, such as temperature=4 or block_weight=0; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Train a decomposed model to answer as the dense one does. Needs no labels but those that choose the epoch."""
    from vitnla.data.load import load_data
    from vitnla.sources.load import load_model
    from vitnla.training.config import DistillConfig
    from vitnla.training.distill import distill as run
    from vitnla.training.progress import console_progress

    given = {"epochs": epochs, "lr": lr, "seed": seed}
    config = DistillConfig().changed(
        assignments(setting or ()) | {name: value for name, value in given.items() if value is not None}
    )
    with console_progress("distilling") as progress:
        result = run(load_model(teacher), load_model(student), load_data(data, class_map), config, output, progress, images)
    say(
        f"{result.folder}: test top-1 {result.test_top1:.2%}, before {result.student_test_top1:.2%}, "
        f"teacher {result.teacher_test_top1:.2%}; export it with: vitdeploy export --model {result.folder} --method none"
    )
    if json:
        emit(
            {
                "checkpoint": str(result.folder),
                **result.run.model_dump(include={"epochs", "best_epoch", "images", "split"}),
                "validation_top1": result.validation_top1,
                "test_top1": result.test_top1,
                "teacher_test_top1": result.teacher_test_top1,
                "student_test_top1": result.student_test_top1,
                "student_validation_top1": result.student_validation_top1,
            }
        )
