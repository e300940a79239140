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
    from vitnla.decomposition import DecomposedModel, decompose
    from vitnla.methods import METHODS
    from vitnla.methods.auto.config import AutoConfig
    from vitnla.methods.cholesky.config import CholeskyConfig
    from vitnla.methods.none.config import NoneConfig
    from vitnla.methods.pca.config import PcaConfig
    from vitnla.methods.pca_slice.config import PcaSliceConfig
    from vitnla.methods.svd.config import SvdConfig
    from vitnla.methods.symmetric.config import SymmetricConfig
    from vitnla.methods.tensor.config import TensorConfig
    from vitnla.model import VisionTransformer, ViTConfig, load_checkpoint, save_checkpoint
    from vitnla.sources.from_module import from_module
    from vitnla.sources.load import load_model
    from vitnla.sources.source_model import SourceModel

_HOMES = {
    "AutoConfig": "vitnla.methods.auto.config",
    "CholeskyConfig": "vitnla.methods.cholesky.config",
    "Dataset": "vitnla.data.dataset",
    "DecomposedModel": "vitnla.decomposition",
    "METHODS": "vitnla.methods",
    "NoneConfig": "vitnla.methods.none.config",
    "PcaConfig": "vitnla.methods.pca.config",
    "PcaSliceConfig": "vitnla.methods.pca_slice.config",
    "Preprocessing": "vitnla.data.preprocessing",
    "SourceModel": "vitnla.sources.source_model",
    "Split": "vitnla.data.dataset",
    "SvdConfig": "vitnla.methods.svd.config",
    "SymmetricConfig": "vitnla.methods.symmetric.config",
    "TensorConfig": "vitnla.methods.tensor.config",
    "ViTConfig": "vitnla.model",
    "VisionTransformer": "vitnla.model",
    "cached_statistics": "vitnla.calibration.cache",
    "decompose": "vitnla.decomposition",
    "from_module": "vitnla.sources.from_module",
    "load_checkpoint": "vitnla.model",
    "load_data": "vitnla.data.load",
    "load_model": "vitnla.sources.load",
    "save_checkpoint": "vitnla.model",
}
__all__ = [
    "METHODS",
    "AutoConfig",
    "CholeskyConfig",
    "Dataset",
    "DecomposedModel",
    "NoneConfig",
    "PcaConfig",
    "PcaSliceConfig",
    "Preprocessing",
    "SourceModel",
    "Split",
    "SvdConfig",
    "SymmetricConfig",
    "TensorConfig",
    "ViTConfig",
    "VisionTransformer",
    "cached_statistics",
    "decompose",
    "from_module",
    "load_checkpoint",
    "load_data",
    "load_model",
    "save_checkpoint",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vitnla' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
