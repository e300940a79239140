"""Whether the exported file says what the model says: logits against torch, classes against the labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from export.preparation import Prepare
from export.trace import INPUT
from runtime.bundle import Parity
from runtime.parity import relative_error
from runtime.runners.base import Images, Logits
from vitnla.common.measures import Accuracy
from vitnla.data.dataset import Split
from vitnla.data.image_files import Images as Pixels

BATCHES, TOLERANCE = (1, 2, 7), 1e-4
_BATCH = 250
Progress = Callable[[int, int], None]


class OnnxModel:
    """The written file in ONNX Runtime on the CPU. There is no manifest yet, so this cannot be a runner's session."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Images) -> Logits:
        """Images as the graph takes them -> logits [B, classes]."""
        return np.asarray(self._session.run(None, {INPUT: images})[0], np.float32)


@torch.inference_mode()
def torch_logits(model: nn.Module, images: Images) -> Logits:
    """The reference: float32 logits [B, classes] of torch on the CPU."""
    logits: Logits = model.cpu().eval()(torch.from_numpy(images)).numpy()
    return logits


def measure_parity(
    onnx_model: Callable[[Images], Logits], model: nn.Module, images: Images,
    batches: tuple[int, ...] = BATCHES, tolerance: float = TOLERANCE,
) -> Parity:  # fmt: skip
    """Compare logits at each batch size, on the first of N `images`; fewer images than a batch are repeated."""
    repeated: Images = np.resize(images, (max(*batches, len(images)), *images.shape[1:]))
    errors = [relative_error(onnx_model(repeated[:batch]), torch_logits(model, repeated[:batch])) for batch in batches]
    return Parity(max_rel=max(errors), tolerance=tolerance, batches=batches)


def classify(
    onnx_model: Callable[[Images], Logits], prepare: Prepare, images: Pixels, on_progress: Progress
) -> NDArray[np.int64]:
    """Classes [N] of images [N], batch by batch."""
    classes = []
    for start in range(0, len(images), _BATCH):
        classes.append(onnx_model(prepare(images[start : start + _BATCH])).argmax(1))
        on_progress(min(start + _BATCH, len(images)), len(images))
    return np.concatenate(classes).astype(np.int64)


def accuracy(split: str, data: Split, classes: NDArray[np.int64], dense: NDArray[np.int64]) -> Accuracy:
    """Top-1 of the exported file and of the dense source from their classes [N], and how often the two agree."""
    return Accuracy(
        split=split, fingerprint=data.fingerprint(), images=len(data), dense_top1=float((dense == data.labels).mean()),
        top1=float((classes == data.labels).mean()), agreement=float((classes == dense).mean()),
    )  # fmt: skip
