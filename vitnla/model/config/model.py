"""The shape of a Vision Transformer, decomposed or not, as one frozen value."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from vitnla.common.errors import InputError
from vitnla.common.schema import Record, first_complaint
from vitnla.model.config.attention import StandardAttentionConfig
from vitnla.model.config.block import BlockConfig
from vitnla.model.config.mlp import PlainMlpConfig
from vitnla.model.config.parts import KindConfig, Permission, Width
from vitnla.model.config.position import LearnedPositionConfig, PositionField

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]
Pooling = Literal["cls", "mean", "mean-all", "cls+mean", "cls+dist", "map"]
"""The head's input, from the encoded tokens; `+` is concatenation:

- `cls`: the class token. `mean`: the mean of the patches; `mean-all`: of every token.
- `cls+dist`: the class token and the first register, which is DeiT's distillation token. One head over both, of half the
  weights of DeiT's two, gives the mean of their logits.
- `map`: multi-head attention pooling (see `AttentionPoolConfig`).
"""
FinalNorm = Literal["tokens", "pooled", "none"]
"""Position of the last norm: on every encoded token, on the pooled features, or absent."""
NormKind = Literal["layer", "rms"]


class AttentionPoolConfig(Record):
    """Pooling by one learned query that attends to the patches, then an MLP on the residual sum (SigLIP's head).

    Its width `dim` is independent of the residual stream, so narrowing the stream does not change it.
    """

    dim: Width
    heads: Width
    mlp_dim: Width
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim of the attention pool must be a multiple of its heads {self.heads}, but got {self.dim}")
        return self


class ViTConfig(Record):
    """Every width of a `VisionTransformer`. Two models of equal config have parameters of equal names and shapes."""

    image_size: Width
    patch_size: Width
    channels: Width
    classes: Width
    dim: Width
    blocks: Annotated[tuple[BlockConfig, ...], Field(min_length=1)]
    class_token: bool = True
    registers: Annotated[int, Field(ge=0)] = 0
    pooling: Pooling = "cls"
    activation: Activation = "gelu"
    layer_scale: bool = False
    norm: NormKind = "layer"
    """`layer` is LayerNorm; `rms` divides by the root mean square only; `pca-slice` turns every LayerNorm into the latter."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    head_hidden: Width | None = None
    """Hidden width of the MLP head; `None` is a single linear layer."""
    attention_pool: AttentionPoolConfig | None = None
    """Config of the attention pool, for pooling `map`."""
    embed_norm: bool = False
    """A LayerNorm between the embedding and the first block, as in CLIP."""
    final_norm: FinalNorm = "tokens"
    ignore_remainder: bool = False
    """True to ignore pixels right of and below the last whole patch; otherwise there must be none."""
    position: PositionField = LearnedPositionConfig()
    """Position encoding. Stored only where it is not `learned`, the only kind in older configs."""

    @model_serializer(mode="wrap")
    def _stored(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        stored: dict[str, Any] = handler(self)
        if type(self.position) is LearnedPositionConfig:
            stored.pop("position", None)
        return stored

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.image_size % self.patch_size and not self.ignore_remainder:
            raise ValueError(f"image_size must be a multiple of patch_size {self.patch_size}, but got {self.image_size}")
        if "cls" in self.pooling and not self.class_token:
            raise ValueError(f"pooling '{self.pooling}' needs class_token")
        if self.pooling == "cls+dist" and not self.registers:
            raise ValueError("pooling 'cls+dist' needs a register, the distillation token")
        if (self.pooling == "map") != (self.attention_pool is not None):
            raise ValueError("pooling 'map' and attention_pool need each other")
        if self.final_norm == "pooled" and self.pooling not in ("cls", "mean", "mean-all"):
            raise ValueError(f"final_norm 'pooled' needs pooling to one vector of width dim, but got '{self.pooling}'")
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size must be at least patch_size {self.patch_size}, but got {self.image_size}")
        for index, block in enumerate(self.blocks):
            for where, complaint in block.complaints(self.tokens, self.dim):
                raise ValueError(f"blocks.{index}{where}: {complaint}")
            if self.position.in_attention and (refusal := block.attention.can_apply_positions.refusal) is not None:
                raise ValueError(
                    f"blocks.{index}: {self.position.label} acts inside the attention, but {block.attention.label}: {refusal}"
                )
        return self

    @classmethod
    def uniform(
        cls, *, image_size: int, patch_size: int, channels: int, classes: int, dim: int, depth: int, heads: int,
        mlp_ratio: float = 4.0, class_token: bool = True, registers: int = 0, pooling: Pooling = "cls",
        activation: Activation = "gelu", layer_scale: bool = False, norm_eps: float = 1e-6, head_hidden: int | None = None,
        attention_pool: AttentionPoolConfig | None = None, embed_norm: bool = False, final_norm: FinalNorm = "tokens",
        ignore_remainder: bool = False,
    ) -> Self:  # fmt: skip
        """Return a dense ViT with equal blocks, in the usual terms (`dim`, `depth`, `heads`, `mlp_ratio`).

        Raises:
            InputError: a width is not positive, or `dim` is not a multiple of `heads`.
        """
        if heads < 1 or dim % heads:
            raise InputError(f"dim must be a multiple of heads {heads}, but got {dim}", "change dim or heads")
        try:
            attention = StandardAttentionConfig(heads=heads, qk_dim=dim // heads, v_dim=dim // heads)
            block = BlockConfig(attention=attention, mlp=PlainMlpConfig(mlp_dim=round(dim * mlp_ratio)))
            return cls(
                image_size=image_size, patch_size=patch_size, channels=channels, classes=classes, dim=dim,
                blocks=(block,) * depth, class_token=class_token, registers=registers, pooling=pooling,
                activation=activation, layer_scale=layer_scale, norm_eps=norm_eps, head_hidden=head_hidden,
                attention_pool=attention_pool, embed_norm=embed_norm, final_norm=final_norm, ignore_remainder=ignore_remainder,
            )  # fmt: skip
        except ValidationError as error:
            raise InputError(f"model shape: {first_complaint(error)}", "change the named width") from error

    def exportable(self) -> Self:
        """Return an equivalent config that a graph can express: no unused factors, truncation by matrix products, gains folded."""
        blocks = [block.model_copy(update={"online": block.online and block.online.exportable()}) for block in self.blocks]
        # A truncation stands between proj and the gain, which then cannot become part of proj's weights.
        folded = not any(block.online is not None and block.online.site == "output" for block in blocks)
        return self.model_copy(update={"blocks": tuple(blocks), "layer_scale": self.layer_scale and not folded})

    @property
    def features(self) -> int:
        """Width of the head's input."""
        if self.attention_pool is not None:
            return self.attention_pool.dim
        return self.dim * (2 if "+" in self.pooling else 1)

    @property
    def patches(self) -> int:
        """Number of patch tokens."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def prefix_tokens(self) -> int:
        """Tokens before the patches: the class token, then the registers."""
        return int(self.class_token) + self.registers

    @property
    def tokens(self) -> int:
        """Length of the encoder's token sequence."""
        return self.prefix_tokens + self.patches

    def can_narrow_scores(self, block: int) -> Permission:
        """Return the permission to narrow a block's `qk_dim`, of its attention and of the positions."""
        attention = self.blocks[block].attention
        return _all_of((attention, attention.can_narrow_scores), (self.position, self.position.can_narrow_scores))

    def can_narrow_values(self, block: int) -> Permission:
        """Return the permission to narrow a block's `v_dim`."""
        attention = self.blocks[block].attention
        return _all_of((attention, attention.can_narrow_values))

    def can_narrow_units(self, block: int) -> Permission:
        """Return the permission to narrow a block's `mlp_dim`."""
        mlp = self.blocks[block].mlp
        return _all_of((mlp, mlp.can_narrow_units))

    def can_slice_stream(self, block: int) -> Permission:
        """Return a block's permission to rotate and narrow the residual stream."""
        chosen = self.blocks[block]
        parts = (chosen.attention, chosen.mlp, self.position, *((chosen.online,) if chosen.online is not None else ()))
        return _all_of(*((part, part.can_slice_stream) for part in parts))


def _all_of(*asked: tuple[KindConfig, Permission]) -> Permission:
    """Return a grant if every part grants it, else the first refusal with the name of its part."""
    refusals = (f"{part.label}: {permission.refusal}" for part, permission in asked if not permission)
    return Permission(next(refusals, None))
