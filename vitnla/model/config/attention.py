"""The kinds of attention, by how scores are computed from tokens X [N, dim], of which x is one row."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny

from vitnla.model.config.parts import ALLOWED, UNDECLARED, BlockPart, Kinds, LinearName, Permission, Shape, Width


class AttentionConfig(BlockPart):
    """Multi-head self-attention of `heads` heads: one linear `qkv` into them, one linear `proj` out of them.

    `qk_dim` and `v_dim` are widths per head, so queries and keys may be narrower than values.
    """

    family: ClassVar[str] = "attention"
    can_narrow_scores: ClassVar[Permission] = UNDECLARED
    """Permission to narrow `qk_dim`: true where `qkv` holds W_q, W_k and W_v, and scores depend on W_q and W_k only by
    (W_q x + b_q)^T (W_k y + b_k) of each head, so that any change of basis of a head keeps them."""
    can_narrow_values: ClassVar[Permission] = UNDECLARED
    """Permission to narrow `v_dim`: true where a head's output is the mean of its values with weights that sum to one."""
    can_apply_positions: ClassVar[Permission] = Permission("its layer applies none")
    """True where its layer applies positions that act inside the attention, see `PositionConfig.in_attention`."""
    has_gram_scores: ClassVar[bool] = False
    """True where scores are X X^T, which an online decomposition can truncate."""

    heads: Width
    qk_dim: Width
    v_dim: Width

    @property
    @abstractmethod
    def query_key_widths(self) -> tuple[int, ...]:
        """Widths of the parts of `qkv` before the values, over all heads: queries and keys, queries alone, or neither."""

    @property
    def qkv_widths(self) -> tuple[int, ...]:
        """Widths of the parts of `qkv`, over all heads; the values are the last."""
        return (*self.query_key_widths, self.heads * self.v_dim)

    def linears(self, dim: int) -> dict[LinearName, Shape]:
        """Return the shapes of `qkv` and `proj`, see `BlockPart.linears`."""
        return {"qkv": (sum(self.qkv_widths), dim), "proj": (dim, self.heads * self.v_dim)}

    def macs_per_unit(self, dim: int) -> dict[str, int]:
        """Return the MACs of a unit of `v_dim`: a row of the values and a column of `proj` in every head."""
        return {"v_dim": 2 * self.heads * dim}


ATTENTION_KINDS: Kinds[AttentionConfig] = Kinds("attention")
AttentionField = Annotated[SerializeAsAny[AttentionConfig], BeforeValidator(ATTENTION_KINDS.resolve)]
"""A field that holds any registered kind."""


@ATTENTION_KINDS.register
class StandardAttentionConfig(AttentionConfig):
    """Scores Q K^T, with separate queries and keys."""

    kind: Literal["standard"] = "standard"
    can_narrow_scores: ClassVar[Permission] = ALLOWED
    can_narrow_values: ClassVar[Permission] = ALLOWED
    can_slice_stream: ClassVar[Permission] = ALLOWED

    @property
    def query_key_widths(self) -> tuple[int, ...]:
        """Widths of queries and keys."""
        return (self.heads * self.qk_dim,) * 2

    def macs_per_unit(self, dim: int) -> dict[str, int]:
        """Return the MACs of a unit of `v_dim` and of `qk_dim`: for the latter a row of queries and of keys in every head."""
        return {"qk_dim": 2 * self.heads * dim, **super().macs_per_unit(dim)}


@ATTENTION_KINDS.register
class SymmetricAttentionConfig(AttentionConfig):
    """Scores Q diag(s) Q^T, with one projection and a learned s [heads x qk_dim]."""

    kind: Literal["symmetric"] = "symmetric"
    can_narrow_scores: ClassVar[Permission] = Permission("one projection makes both queries and keys")
    can_narrow_values: ClassVar[Permission] = ALLOWED
    can_slice_stream: ClassVar[Permission] = ALLOWED

    @property
    def query_key_widths(self) -> tuple[int, ...]:
        """Width of the queries alone."""
        return (self.heads * self.qk_dim,)

    def own_macs(self) -> dict[LinearName, int]:
        """Return the MACs of the keys, which are queries times s."""
        return {"qkv": self.heads * self.qk_dim}

    def own_parameters(self) -> dict[LinearName, int]:
        """Return the size of the vector s."""
        return {"qkv": self.heads * self.qk_dim}


@ATTENTION_KINDS.register
class CholeskyAttentionConfig(AttentionConfig):
    """The deck's scores X_h L L^T X_h^T, of the head's own channels X_h [N, qk_dim] and a learned lower-triangular L."""

    kind: Literal["cholesky"] = "cholesky"
    can_narrow_scores: ClassVar[Permission] = Permission("its scores come from channels of the stream, not from W_q and W_k")
    can_narrow_values: ClassVar[Permission] = ALLOWED
    can_slice_stream: ClassVar[Permission] = Permission("every head reads channels of its own in the stream")

    @property
    def query_key_widths(self) -> tuple[int, ...]:
        """Empty: no queries or keys in `qkv`."""
        return ()

    def own_macs(self) -> dict[LinearName, int]:
        """Return the MACs of X_h L_h; the triangle is multiplied as a full matrix."""
        return {"qkv": self.heads * self.qk_dim**2}

    def own_parameters(self) -> dict[LinearName, int]:
        """Return the number of parameters of the triangles."""
        return {"qkv": self.heads * self.qk_dim * (self.qk_dim + 1) // 2}

    def accepts_stream(self, dim: int) -> Permission:
        """Accept a stream only if its channels are split evenly among the heads."""
        width = self.heads * self.qk_dim
        return ALLOWED if width == dim else Permission(f"splits dim {dim} into heads, but got {width} channels")


@ATTENTION_KINDS.register
class GramAttentionConfig(AttentionConfig):
    """The deck's scores X X^T, the same for every head and without weights."""

    kind: Literal["gram"] = "gram"
    can_narrow_scores: ClassVar[Permission] = Permission("its scores X X^T have no W_q and W_k")
    can_narrow_values: ClassVar[Permission] = ALLOWED
    can_slice_stream: ClassVar[Permission] = Permission("its scores X X^T are of the whole stream")
    has_gram_scores: ClassVar[bool] = True

    @property
    def query_key_widths(self) -> tuple[int, ...]:
        """Empty: no queries or keys in `qkv`."""
        return ()
