"""The layers of the model. Importing the package registers every kind of attention, MLP and position under its name."""

from vitnla.model.layers.attention import ATTENTIONS, Attention, StandardAttention, SymmetricAttention
from vitnla.model.layers.block import Block, LayerScale
from vitnla.model.layers.deck import CholeskyAttention, GramAttention
from vitnla.model.layers.linear import LowRankLinear, assign_weight, balanced_factors, linear
from vitnla.model.layers.mlp import MLPS, Mlp, PlainMlp, activation
from vitnla.model.layers.norm import RMSNorm, norm
from vitnla.model.layers.pooling import AttentionPool
from vitnla.model.layers.position import TABLES

__all__ = [
    "ATTENTIONS", "MLPS", "TABLES", "Attention", "AttentionPool", "Block", "CholeskyAttention", "GramAttention", "LayerScale",
    "LowRankLinear", "Mlp", "PlainMlp", "RMSNorm", "StandardAttention", "SymmetricAttention", "activation", "assign_weight",
    "balanced_factors", "linear", "norm",
]  # fmt: skip
