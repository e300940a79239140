"""vitdeploy: Vision Transformers, decomposed ahead of time.

What docs/api.md describes can be imported from here. Each name is loaded when it is first asked for, since most need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vitnla.calibration.cache import cached_statistics
    from vitnla.data.dataset import Dataset, Split
    from vitnla.data.load import load_data
    from vitnla.data.preprocessing import Preprocessing
    from vitnla.methods import METHODS
    from vitnla.model import VisionTransformer, ViTConfig, load_checkpoint, save_checkpoint
    from vitnla.sources.from_module import from_module
    from vitnla.sources.load import load_model
    from vitnla.sources.source_model import SourceModel

_HOMES = {
    "METHODS": "vitnla.methods", "Dataset": "vitnla.data.dataset", "Preprocessing": "vitnla.data.preprocessing",
    "SourceModel": "vitnla.sources.source_model", "Split": "vitnla.data.dataset", "ViTConfig": "vitnla.model",
    "VisionTransformer": "vitnla.model", "cached_statistics": "vitnla.calibration.cache", "from_module": "vitnla.sources.from_module",
    "load_checkpoint": "vitnla.model", "load_data": "vitnla.data.load", "load_model": "vitnla.sources.load",
    "save_checkpoint": "vitnla.model",
}  # fmt: skip
__all__ = [
    "METHODS", "Dataset", "Preprocessing", "SourceModel", "Split", "ViTConfig", "VisionTransformer", "cached_statistics",
    "from_module", "load_checkpoint", "load_data", "load_model", "save_checkpoint",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitnla' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
