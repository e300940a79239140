"""Torch counterpart of a graph with preprocessing inside: reference of the parity check, and model of the torch runner."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graph.preprocessing import OutputKind
from vitnla.common.errors import VerdictError
from vitnla.data.pixel_map import PixelMap
from vitnla.data.preprocessing import Preprocessing

GREY_LEVELS = 1.25
"""Largest difference of resized pixels from Pillow's, in grey levels of 0 to 255. Pillow rounds to whole levels after each of its two
passes: half a level after the second, and half a level of the first times the sum of the filter's weights without their signs,
which is 1, or up to 1.25 for bicubic."""


class EmbeddedViT(nn.Module):
    """uint8 pixels [B, H, W, C] -> logits or probabilities [B, classes], float32."""

    def __init__(self, model: nn.Module, pixels: PixelMap, output: OutputKind) -> None:
        super().__init__()
        self.model, self.output, self.clips = model, output, pixels.clips
        self.order = tuple(name for name, _ in pixels.products)
        for name, array in (*pixels.products, ("scale", pixels.scale), ("shift", pixels.shift)):
            self.register_buffer(name, torch.tensor(array), persistent=False)

    def prepare(self, images: Tensor) -> Tensor:
        """Convert pixels to the model's input, float32 [B, C, S, S]."""
        pixels = images.permute(0, 3, 1, 2).float()
        for name in self.order:
            matrix = self.get_buffer(name)
            pixels = matrix @ pixels if name == "rows" else pixels @ matrix
            if self.clips:
                pixels = pixels.clamp(0, 255)
        return pixels * self.get_buffer("scale") + self.get_buffer("shift")

    def forward(self, images: Tensor) -> Tensor:
        """Prepare, classify and, for probabilities, normalise."""
        logits: Tensor = self.model(self.prepare(images))
        return logits.softmax(-1) if self.output == "probabilities" else logits


@torch.inference_mode()
def require_same_pixels(twin: EmbeddedViT, preprocessing: Preprocessing, images: NDArray[np.uint8]) -> float:
    """Compare the model's input with the result of `preprocessing` for the same images [N, H, W, C].

    Returns:
        The largest difference, in grey levels of 0 to 255.

    Raises:
        VerdictError: the difference is more than Pillow's rounding can explain.
    """
    side = preprocessing.image_size
    # Pixels of the model's own size were cut before they came here, and must not be cut again.
    expected = preprocessing.normalise(images) if images.shape[1:3] == (side, side) else preprocessing(images)
    difference = np.abs(twin.prepare(torch.from_numpy(images)).numpy() - expected)
    levels = float((difference * 255 * np.asarray(preprocessing.std, np.float32).reshape(-1, 1, 1)).max())
    if not levels <= GREY_LEVELS:
        raise VerdictError(
            f"the embedded preprocessing differs by {levels:.2f} grey levels, expected at most {GREY_LEVELS}",
            "export without --embed-preprocessing, and report this as a bug with the version of Pillow",
        )
    return levels
