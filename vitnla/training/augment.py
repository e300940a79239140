"""Random augmentation of a batch of images, on the batch's device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vitnla.training.config import Schedule


def augment(images: Tensor, config: Schedule, generator: torch.Generator) -> Tensor:
    """Flip, shift and erase images [B, C, H, W], each with its own random draw; blank pixels are the image's minimum."""
    images = images.clone()
    if config.flip:
        flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    if config.shift:
        images = _shift(images, config.shift, generator)
    if config.erase:
        images = _erase(images, config.erase, generator)
    return images


def drop_tokens(tokens: Tensor, prefix: int, keep: float, generator: torch.Generator) -> Tensor:
    """Keep a random share of the patch tokens of each image, and all prefix tokens: [B, N, D] -> [B, M, D]."""
    if keep == 1:
        return tokens
    batch, length, dim = tokens.shape
    kept = max(1, round((length - prefix) * keep))
    order = torch.rand(batch, length - prefix, generator=generator, device=tokens.device).argsort(dim=1)[:, :kept] + prefix
    patches = tokens.gather(1, order[..., None].expand(-1, -1, dim))
    return torch.cat([tokens[:, :prefix], patches], dim=1)


def _shift(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    low = images.amin().item()
    padded = F.pad(images, (reach,) * 4, value=low)
    offset = torch.randint(0, 2 * reach + 1, (2, batch, 1), generator=generator, device=images.device)
    rows = offset[0] + torch.arange(height, device=images.device)
    columns = offset[1] + torch.arange(width, device=images.device)
    index = torch.arange(batch, device=images.device)[:, None, None]
    return padded.transpose(0, 1)[:, index, rows[:, :, None], columns[:, None, :]].transpose(0, 1)


def _erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    draw = torch.rand(5, batch, 1, generator=generator, device=images.device)
    size_y, size_x = (0.15 + 0.35 * draw[0]) * height, (0.15 + 0.35 * draw[1]) * width
    top, left = draw[2] * (height - size_y), draw[3] * (width - size_x)
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    inside = ((rows >= top) & (rows < top + size_y))[:, :, None] & ((columns >= left) & (columns < left + size_x))[:, None, :]
    chosen = inside & (draw[4] < probability)[..., None]
    return images.masked_fill(chosen[:, None], images.amin().item())
