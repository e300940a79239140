"""State of a run on disk: everything needed to resume with the same result as without the interruption."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch.optim import Optimizer

from vitnla.common.errors import InputError
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record
from vitnla.model.checkpoint import read_tensors
from vitnla.model.vit import VisionTransformer
from vitnla.training.optimizer import MovingAverage, optimizer_tensors, restore_optimizers

STATE = Path("state") / "state.safetensors"


class Standing(Record):
    """Progress of a run."""

    epochs_done: int = 0
    ema_steps: int = 0
    best_top1: float = -1.0


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that holds anything but a run; called before the long work starts.

    Raises:
        InputError: the folder holds something else, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, expected a folder to write", "choose another folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / STATE).is_file():
        raise InputError(f"{folder} holds files, but no run to resume", "choose another folder with -o")


def save_run(
    folder: Path, settings: Mapping[str, Any], standing: Standing,
    model: VisionTransformer, optimizers: list[Optimizer], average: MovingAverage,
) -> None:  # fmt: skip
    """Write the weights, their average and the optimisers, with the run's progress and its settings (JSON values)."""
    tensors = {f"model.{name}": tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    tensors |= {f"ema.{name}": tensor.cpu().contiguous() for name, tensor in average.tensors.items()}
    tensors |= optimizer_tensors(optimizers)
    # One file holds both the tensors and the JSON, so that a kill between two writes cannot leave a mismatched pair.
    write_atomically(folder / STATE, save(tensors, {"state": json.dumps({**settings, **standing.model_dump()})}))


def restore_run(
    folder: Path, settings: Mapping[str, Any], model: VisionTransformer, optimizers: list[Optimizer], average: MovingAverage
) -> Standing:
    """Load the output of `save_run` into the given model, optimisers and average.

    Raises:
        InputError: the run has other settings, or its file is damaged.
    """
    path = folder / STATE
    tensors = read_tensors(path)
    saved = _read_state(path)
    for name, value in settings.items():
        if saved.get(name) != value:
            raise InputError(
                f"{folder} holds a run with other settings ({name} differs)",
                "give the same settings to resume, or another folder with -o",
            )
    standing = Standing.model_validate({name: saved[name] for name in Standing.model_fields})
    model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
    device = next(model.parameters()).device
    average.tensors = {name[4:]: tensor.to(device) for name, tensor in tensors.items() if name.startswith("ema.")}
    average.steps = standing.ema_steps
    restore_optimizers(optimizers, tensors)
    return standing


def _read_state(path: Path) -> dict[str, Any]:
    """Return the JSON in the header of a safetensors file, which its library does not return together with the tensors."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    state: dict[str, Any] = json.loads(header["__metadata__"]["state"])
    return state
