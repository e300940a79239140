"""The shape of a Vision Transformer as one frozen value, with a config for each kind of attention, MLP and position.

A kind's config declares its linears, their cost, and the permitted changes. Methods query these permissions; none
of them tests for a kind by name. A new kind needs the following, which tests/contracts/test_kinds.py checks:

- its config: vitnla/model/config/attention.py, vitnla/model/config/mlp.py, vitnla/model/config/position.py
- its layer: vitnla/model/layers/attention.py, vitnla/model/layers/deck.py, vitnla/model/layers/mlp.py, vitnla/model/layers/position.py
- its source adapter: vitnla/sources
- its latency operator: export/latency/operators.py
- its tests: tests/contracts/test_kinds.py, tests/vitnla/model, tests/vitnla/sources
"""

from vitnla.model.config.attention import (
    ATTENTION_KINDS,
    AttentionConfig,
    CholeskyAttentionConfig,
    GramAttentionConfig,
    StandardAttentionConfig,
    SymmetricAttentionConfig,
)
from vitnla.model.config.block import BlockConfig
from vitnla.model.config.mlp import MLP_KINDS, MlpConfig, PlainMlpConfig
from vitnla.model.config.model import Activation, AttentionPoolConfig, FinalNorm, NormKind, Pooling, ViTConfig
from vitnla.model.config.online import Online, StoredFactor, Truncation
from vitnla.model.config.parts import ALLOWED, LINEARS, LinearName, Permission, Ranks
from vitnla.model.config.position import POSITION_KINDS, LearnedPositionConfig, PositionConfig

__all__ = [
    "ALLOWED", "ATTENTION_KINDS", "LINEARS", "MLP_KINDS", "POSITION_KINDS", "Activation", "AttentionConfig", "AttentionPoolConfig",
    "BlockConfig", "CholeskyAttentionConfig", "FinalNorm", "GramAttentionConfig", "LearnedPositionConfig", "LinearName", "MlpConfig",
    "NormKind", "Online", "Permission", "PlainMlpConfig", "Pooling", "PositionConfig", "Ranks", "StandardAttentionConfig",
    "StoredFactor", "SymmetricAttentionConfig", "Truncation", "ViTConfig",
]  # fmt: skip
