"""The kinds of position: how a model knows where in the image a token comes from."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny

from vitnla.model.config.parts import ALLOWED, UNDECLARED, KindConfig, Kinds, Permission


class PositionConfig(KindConfig):
    """Positions of the whole model. A kind that acts inside the attention has a say in what may be done to the attention.

    Every permission of a new kind is a refusal until it declares another: a rotation of queries and keys, say, does not commute
    with the change of basis that narrows them.
    """

    family: ClassVar[str] = "position"
    can_narrow_scores: ClassVar[Permission] = UNDECLARED
    """Whether a head's queries and keys may change their basis, see `AttentionConfig.can_narrow_scores`."""
    can_slice_stream: ClassVar[Permission] = UNDECLARED
    """Whether the residual stream may be rotated and narrowed, see `BlockPart.can_slice_stream`."""
    can_drop_tokens: ClassVar[Permission] = UNDECLARED
    """Whether the encoder may be given some of the tokens only, as training does."""
    in_attention: ClassVar[bool] = True
    """Whether positions act on queries, keys or scores, so that the layer of every attention has to apply them."""
    has_table: ClassVar[bool] = False
    """Whether the model has a parameter `pos_embed` [tokens, dim] that is added to the embedded tokens."""


POSITION_KINDS: Kinds[PositionConfig] = Kinds("position")
PositionField = Annotated[SerializeAsAny[PositionConfig], BeforeValidator(POSITION_KINDS.resolve)]
"""A field that holds any registered kind."""


@POSITION_KINDS.register
class LearnedPositionConfig(PositionConfig):
    """A learned vector for every token, added once, before the first block."""

    kind: Literal["learned"] = "learned"
    can_narrow_scores: ClassVar[Permission] = ALLOWED
    can_slice_stream: ClassVar[Permission] = ALLOWED
    can_drop_tokens: ClassVar[Permission] = ALLOWED
    in_attention: ClassVar[bool] = False
    has_table: ClassVar[bool] = True
