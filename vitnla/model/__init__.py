"""The canonical Vision Transformer. Names are imported on first use, so that configs and costs need no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitnla.model.checkpoint import load_checkpoint, save_checkpoint
    from vitnla.model.config import LINEARS, BlockConfig, LinearName, Ranks, ViTConfig
    from vitnla.model.layers import LowRankLinear
    from vitnla.model.vit import VisionTransformer

__all__ = [
    "LINEARS", "BlockConfig", "LinearName", "LowRankLinear", "Ranks", "ViTConfig", "VisionTransformer",
    "load_checkpoint", "save_checkpoint",
]  # fmt: skip

_HOMES = {
    **dict.fromkeys(("load_checkpoint", "save_checkpoint"), "checkpoint"), "LowRankLinear": "layers", "VisionTransformer": "vit",
    **dict.fromkeys(("LINEARS", "BlockConfig", "LinearName", "Ranks", "ViTConfig"), "config"),
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Return the attribute of that name from the module that defines it (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
