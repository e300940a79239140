"""The kinds of position encoding."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny

from vitnla.model.config.parts import ALLOWED, UNDECLARED, KindConfig, Kinds, Permission


class PositionConfig(KindConfig):
    """Position encoding of the whole model. A kind that acts inside the attention may restrict changes to the attention.

    Every permission of a new kind is a refusal until it declares another: a rotation of queries and keys, e.g., does not commute
    with the change of basis that narrows them.
    """

    family: ClassVar[str] = "position"
    can_narrow_scores: ClassVar[Permission] = UNDECLARED
    """Permission to change the basis of a head's queries and keys, see `AttentionConfig.can_narrow_scores`."""
    can_slice_stream: ClassVar[Permission] = UNDECLARED
    """Permission to rotate and narrow the residual stream, see `BlockPart.can_slice_stream`."""
    can_drop_tokens: ClassVar[Permission] = UNDECLARED
    """Permission to run the encoder on a subset of the tokens, as training does."""
    in_attention: ClassVar[bool] = True
    """True where positions act on queries, keys or scores, so that the layer of every attention has to apply them."""
    has_table: ClassVar[bool] = False
    """True where the model has a parameter `pos_embed` [tokens, dim] that is added to the embedded tokens."""


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
