"""Batched prediction of logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from vitnla.data.image_files import Images
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.vit import VisionTransformer


@torch.inference_mode()
def predict(
    model: VisionTransformer, preprocessing: Preprocessing, images: Images, *, device: torch.device | None = None,
    batch_size: int = 250, on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float32]:  # fmt: skip
    """Return logits [N, classes] float32 of images [N], computed in float32, batch by batch."""
    device = device or torch.device("cpu")
    model = model.to(device).eval()
    outputs = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(preprocessing(images[start : start + batch_size])).to(device)
        outputs.append(model(batch).float().cpu().numpy())
        on_progress(min(start + batch_size, len(images)), len(images))
    return np.concatenate(outputs)
