"""Checks of a conversion: it is accepted only if its logits match the source's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitnla.common.errors import InputError
from vitnla.model.checkpoint import build
from vitnla.model.vit import VisionTransformer
from vitnla.sources.tensors import Converted

TOLERANCE = 1e-4
"""Tolerance of the largest absolute difference relative to the largest absolute value."""
_IMAGES = 2


def canonical(converted: Converted, origin: str) -> VisionTransformer:
    """Return the canonical model of a conversion, in evaluation mode.

    Raises:
        InputError: a weight does not have the shape that the config asks for, or is not finite.
    """
    return build(converted.config, converted.tensors, origin)


def weights_digest(model: VisionTransformer) -> str:
    """Return the sha256 of a model's config and weights, for sources that do not come from one file."""
    digest = hashlib.sha256(model.config.to_json().encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def require_same_logits(model: VisionTransformer, source: nn.Module, blocks: Sequence[nn.Module], origin: str) -> None:
    """Compare the canonical model with the source's own module on random images.

    Args:
        source: gives logits [B, classes] for images [B, C, H, W].
        blocks: its encoder blocks, in order.
        origin: names the source in errors.

    Raises:
        InputError: the logits differ by more than 1e-4 of the largest; names the first block whose output does.
    """
    config, generator = model.config, torch.Generator().manual_seed(0)
    images = torch.randn(_IMAGES, config.channels, config.image_size, config.image_size, generator=generator)
    found, ours = _run(model, list(model.blocks), images)
    wanted, theirs = _run(source, blocks, images)
    if (error := _difference(found, wanted)) <= TOLERANCE:
        return
    pairs = enumerate(zip(ours, theirs, strict=False))  # a source may have no blocks that can be watched
    first = next((index for index, (a, b) in pairs if not _difference(a, b) <= TOLERANCE), None)
    where = "what follows the last block" if first is None else f"block {first}" + (" or the embedding" if first == 0 else "")
    message = f"{origin}: the converted model's outputs differ from the source's by {error:.1e} of the largest"
    raise InputError(
        f"{message}, first in {where}", "this variant of the architecture is not supported; report it with the model's name"
    )


def _run(module: nn.Module, blocks: Sequence[nn.Module], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the logits, and the output of every block."""
    outputs: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda module, inputs, output: outputs.append(output)) for block in blocks]
    try:
        logits: Tensor = module.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, outputs


def _difference(found: Tensor, wanted: Tensor) -> float:
    """Return the largest difference relative to the largest value; infinite where the shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    largest = float(wanted.abs().max())
    worst = float((found - wanted).abs().max())
    return worst / largest if largest > 0 else worst
