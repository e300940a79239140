"""The canonical Vision Transformer."""

from vitnla.model.checkpoint import load_checkpoint, save_checkpoint
from vitnla.model.config import LINEARS, BlockConfig, LinearName, Ranks, ViTConfig
from vitnla.model.layers import LowRankLinear
from vitnla.model.vit import VisionTransformer

__all__ = [
    "LINEARS", "BlockConfig", "LinearName", "LowRankLinear", "Ranks", "ViTConfig", "VisionTransformer",
    "load_checkpoint", "save_checkpoint",
]  # fmt: skip
