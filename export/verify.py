"""Whether the exported file says what the model says: logits against torch, classes against the labels."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from runtime.bundle import Parity
from runtime.parity import relative_error
from runtime.runners.base import Images, Logits
from vitnla.common.measures import Accuracy
from vitnla.data.dataset import Split
from vitnla.data.image_files import Images as Pixels
from vitnla.data.preprocessing import Preprocessing

if TYPE_CHECKING:
    from vitnla.model.vit import VisionTransformer

BATCHES, TOLERANCE = (1, 2, 7), 1e-4
_BATCH = 250
Progress = Callable[[int, int], None]


class OnnxModel:
    """The written file in ONNX Runtime on the CPU. There is no manifest yet, so this cannot be a runner's session."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: Images) -> Logits:
        """Images [B, C, H, W] -> logits [B, classes]."""
        return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)


def torch_logits(model: VisionTransformer, images: Images) -> Logits:
    """The reference: float32 logits [B, classes] of torch on the CPU."""
    import torch  # an ONNX file is verified without it

    with torch.inference_mode():
        logits: Logits = model.cpu().eval()(torch.from_numpy(images)).numpy()
    return logits


def measure_parity(
    onnx_model: Callable[[Images], Logits], model: VisionTransformer, images: Images,
    batches: tuple[int, ...] = BATCHES, tolerance: float = TOLERANCE,
) -> Parity:  # fmt: skip
    """Compare logits with torch's, see `compare`."""
    return compare(onnx_model, partial(torch_logits, model), images, batches, tolerance)


def compare(
    onnx_model: Callable[[Images], Logits], reference: Callable[[Images], Logits], images: Images,
    batches: tuple[int, ...] = BATCHES, tolerance: float = TOLERANCE,
) -> Parity:  # fmt: skip
    """Compare logits at each batch size, on the first of `images` [N, C, H, W]; fewer images than a batch are repeated."""
    repeated: Images = np.resize(images, (max(*batches, len(images)), *images.shape[1:]))
    errors = [relative_error(onnx_model(repeated[:batch]), reference(repeated[:batch])) for batch in batches]
    return Parity(max_rel=max(errors), tolerance=tolerance, batches=batches)


def classify(
    onnx_model: Callable[[Images], Logits], preprocessing: Preprocessing, images: Pixels, on_progress: Progress
) -> NDArray[np.int64]:
    """Classes [N] of images [N], batch by batch."""
    classes = []
    for start in range(0, len(images), _BATCH):
        classes.append(onnx_model(preprocessing(images[start : start + _BATCH])).argmax(1))
        on_progress(min(start + _BATCH, len(images)), len(images))
    return np.concatenate(classes).astype(np.int64)


def accuracy(split: str, data: Split, classes: NDArray[np.int64], dense: NDArray[np.int64]) -> Accuracy:
    """Top-1 of the exported file and of the dense source from their classes [N], and how often the two agree."""
    return Accuracy(
        split=split, fingerprint=data.fingerprint(), images=len(data), dense_top1=float((dense == data.labels).mean()),
        top1=float((classes == data.labels).mean()), agreement=float((classes == dense).mean()),
    )  # fmt: skip
