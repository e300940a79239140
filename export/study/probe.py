"""Process that measures one checkpoint in eager PyTorch: `python -m export.study.probe`, called by `export.study.measure`.

Arrays travel as .npy files whose paths are in the request. Memory is that of this process, or of the tensors on the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.bench.timing import time_calls, warm_up
from runtime.process import memory
from runtime.process.server import Answer, serve
from runtime.results.statistics import latency
from vitnla.model.checkpoint import load_checkpoint
from vitnla.training.config import TrainConfig
from vitnla.training.loop import default_device
from vitnla.training.optimizer import make_optimizers
from vitnla.training.supervised import train_step

_RUNS, _SECONDS, _MIN_CALLS = 3, 1.0, 5


def inference(checkpoint: str, images: str, batches: list[int], threads: int) -> Answer:
    """Measure peak bytes of loading the model and running the largest batch, then the speed at each batch size."""
    device = _prepare(threads)
    pixels = torch.from_numpy(np.load(images, allow_pickle=False))
    peak = _Peak(device)
    model = load_checkpoint(Path(checkpoint)).to(device)

    @torch.inference_mode()
    def run(batch: int) -> None:
        model(pixels[:batch].to(device)).cpu()

    for _ in range(_RUNS):
        run(max(batches))
    used = peak.bytes()
    return {"peak": used, "points": [_speed(lambda batch=batch: run(batch), batch) for batch in batches]}  # type: ignore[misc]


def training(checkpoint: str, images: str, labels: str, config: dict[str, Any], threads: int) -> Answer:
    """Measure peak bytes of loading the model and training it for a few steps on every token of one batch."""
    device = _prepare(threads)
    pixels, classes = (torch.from_numpy(np.load(path, allow_pickle=False)) for path in (images, labels))
    settings = TrainConfig.model_validate(config)
    peak = _Peak(device)
    model = load_checkpoint(Path(checkpoint)).to(device).train()
    optimizers = make_optimizers(model, settings)
    generator = torch.Generator(device).manual_seed(0)
    for _ in range(_RUNS):
        train_step(model, optimizers, pixels.to(device), classes.to(device), settings, 1.0, generator)
    return {"peak": peak.bytes()}


def _prepare(threads: int) -> torch.device:
    torch.set_num_threads(threads)
    device = default_device()
    torch.zeros(1, device=device)  # the libraries of the device count as imports
    return device


def _speed(call: Callable[[], None], batch: int) -> Answer:
    stable = warm_up(call)
    timing = time_calls(call, _SECONDS, _MIN_CALLS)
    found = latency(timing.samples_ms)
    assert found is not None  # for the type checker: there are samples
    return {"batch": batch, "latency_ms": found.p50, "images_per_s": batch * timing.count / timing.elapsed_s, "stable": stable}


class _Peak:
    """Peak memory above that at construction."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._before = memory.resident()
            memory.reset_peak()

    def bytes(self) -> int:
        return (torch.cuda.max_memory_allocated() if self._cuda else memory.peak()) - self._before


if __name__ == "__main__":
    serve({"inference": inference, "training": training})
