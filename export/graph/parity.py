"""Parity of the logits of an ONNX file with those of torch or of another graph, and predictions for many images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime

from export.graph.inputs import Prepare
from runtime.bundle.api import open_session
from runtime.bundle.schema import Bundle, Parity
from runtime.check.logits import as_log, relative_error
from runtime.runners.base import Images, Logits
from runtime.runners.batches import run_in_batches
from runtime.runners.ort_options import new_session_options
from vitnla.data.image_files import Images as Pixels

if TYPE_CHECKING:
    from torch import nn

BATCHES, TOLERANCE = (1, 2, 7), 1e-4
_BATCH = 50
Progress = Callable[[int, int], None]


class OnnxModel:
    """An ONNX file or serialised graph in ONNX Runtime on the CPU. Not a runner's session, since those need a manifest."""

    def __init__(self, path: Path | bytes) -> None:
        options = new_session_options()
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Images) -> Logits:
        """Return the logits [B, classes] of images in the graph's input format."""
        return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)


def torch_logits(model: nn.Module, images: Images) -> Logits:
    """Return the reference logits, float32 [B, classes], of torch on the CPU."""
    import torch  # an ONNX file is verified without it

    with torch.inference_mode():
        logits: Logits = model.cpu().eval()(torch.from_numpy(images)).numpy()
    return logits


def measure_parity(
    onnx_model: Callable[[Images], Logits], model: nn.Module, images: Images,
    batches: tuple[int, ...] = BATCHES, tolerance: float = TOLERANCE,
) -> Parity:  # fmt: skip
    """Compare the logits of an ONNX file with torch's, see `compare`."""
    return compare(onnx_model, partial(torch_logits, model), images, batches, tolerance)


def compare(
    onnx_model: Callable[[Images], Logits], reference: Callable[[Images], Logits], images: Images,
    batches: tuple[int, ...] = BATCHES, tolerance: float = TOLERANCE,
) -> Parity:  # fmt: skip
    """Compare logits at each batch size, on the first of N `images`; fewer images than a batch are repeated."""
    repeated: Images = np.resize(images, (max(*batches, len(images)), *images.shape[1:]))
    errors = [relative_error(onnx_model(repeated[:batch]), reference(repeated[:batch])) for batch in batches]
    return Parity(max_rel=max(errors), tolerance=tolerance, batches=batches)


def answer(onnx_model: Callable[[Images], Logits], prepare: Prepare, images: Pixels, on_progress: Progress) -> Logits:
    """Return the logits [N, classes] of images [N], computed batch by batch."""
    logits = []
    for start in range(0, len(images), _BATCH):
        logits.append(onnx_model(prepare(images[start : start + _BATCH])))
        on_progress(min(start + _BATCH, len(images)), len(images))
    return np.concatenate(logits)


def as_logits(output: str) -> Callable[[Logits], Logits]:
    """Return the function from graph outputs to logits [B, classes]; of `probabilities`, the logarithm (up to a constant)."""
    return lambda answers: answers if output == "logits" else as_log(answers)


@contextlib.contextmanager
def runtime_model(bundle: Bundle, runtime: str) -> Iterator[Callable[[Images], Logits]]:
    """Open a bundle on a runtime in this process; yield the function from images to logits.

    Raises:
        MissingDependencyError: the runtime is not installed.
    """
    session = open_session(bundle, runtime, batch=_BATCH)
    try:
        yield lambda images: run_in_batches(session, images, _BATCH)
    finally:
        session.close()
