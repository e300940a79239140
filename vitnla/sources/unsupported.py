"""Errors for models that cannot be converted."""

from __future__ import annotations

from vitnla.common.errors import InputError

SUPPORTED = (
    "timm: plain ViTs (vit_*, deit_*, deit3_*, DINOv2 with and without registers, image towers of CLIP and SigLIP); "
    "transformers: ViT, DeiT, DINOv2, DINOv2 with registers, CLIP, SigLIP; torchvision: vit_*. See docs/models.md"
)
_PARTS = {
    "swin": "attention in shifted windows", "convnext": "convolutional blocks without attention", "beit": "relative position biases",
    "eva": "rotary positions", "dinov3": "rotary positions", "maxvit": "attention in windows and grids",
    "maxxvit": "attention in windows and grids", "levit": "convolutional attention", "pvt": "a pyramid of shrinking key grids",
    "cait": "attention that talks across heads", "xcit": "attention across channels", "mvit": "pooled queries and keys",
    "hiera": "attention in windows", "resnet": "convolutional blocks without attention", "davit": "attention in windows",
    "naflex": "images of variable shape", "siglip2": "images of variable shape", "vitdet": "attention in windows",
}  # fmt: skip
"""The unsupported part, by a substring of the architecture's name."""


def unsupported(message: str, architecture: str) -> InputError:
    """Return the error for an architecture: names the unsupported part, where known, and lists what is supported."""
    plain = architecture.lower().replace("_", "").replace("-", "")
    part = next((reason for name, reason in _PARTS.items() if name in plain), None)
    return InputError(f"{message} ({part})" if part else message, f"supported: {SUPPORTED}")
