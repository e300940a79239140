"""`vitdeploy train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from export.cli.output import Json, assignments, emit


def train(
    data: Annotated[str, typer.Option(help="Data SPEC with a train split, such as cifar10:DIR.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Run folder; an interrupted run there is resumed.")] = Path(
        "artifacts/train"
    ),
    preset: Annotated[str, typer.Option(help="Model shape and schedule.")] = "demo",
    method: Annotated[str, typer.Option(help="Train with this online or trained decomposition; see vitdeploy methods.")] = "none",
    setting: Annotated[list[str] | None, typer.Option("--set", help="NAME=VALUE, a setting of the method; repeatable.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's number.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate, instead of the preset's.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights, the order and the augmentation.")] = 0,
    json: Json = False,
) -> None:
    """Train a ViT from scratch; the epoch that is kept is chosen on the validation split."""
    from vitnla.data.load import load_data
    from vitnla.training.config import PRESETS
    from vitnla.training.progress import console_progress
    from vitnla.training.run import train_on

    changes = {"epochs": epochs, "lr": lr, "seed": seed}
    chosen = PRESETS[preset].with_training(**{name: value for name, value in changes.items() if value is not None})
    with console_progress() as progress:
        result = train_on(load_data(data), chosen, output, progress, method, assignments(setting or ()))
    if json:
        emit(
            {
                "checkpoint": str(result.folder),
                "method": method,
                "epochs": result.epochs,
                "validation_top1": result.validation_top1,
                "test_top1": result.test_top1,
            }
        )
