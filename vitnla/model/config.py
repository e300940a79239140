"""The shape of a Vision Transformer, decomposed or not, as one frozen value."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from vitnla.common.errors import InputError
from vitnla.common.schema import Record, first_complaint

Width = Annotated[int, Field(ge=1)]
Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu"]
Pooling = Literal["cls", "mean", "mean-all", "cls+mean", "cls+dist", "map"]
"""What the head is given of the encoded tokens; `+` is side by side:

- `cls`: the class token. `mean`: the mean of the patches; `mean-all`: of every token.
- `cls+dist`: the class token and the first register, which is DeiT's distillation token. One head over both, of half the
  weights of DeiT's two, is the mean of their answers.
- `map`: multi-head attention pooling (see `AttentionPoolConfig`).
"""
FinalNorm = Literal["tokens", "pooled", "none"]
"""Where the last norm stands: on every encoded token, on what pooling makes of them, or nowhere."""
NormKind = Literal["layer", "rms"]
LinearName = Literal["qkv", "proj", "fc1", "fc2"]
LINEARS: tuple[LinearName, ...] = ("qkv", "proj", "fc1", "fc2")
AttentionKind = Literal["standard", "symmetric", "cholesky", "gram"]
"""Where the scores of a head come from, for tokens X [N, dim] of which x is one row:

- `standard`: Q K^T, with queries and keys of their own.
- `symmetric`: Q diag(s) Q^T, one projection and a learned s [qk_dim].
- `cholesky`: X_h L L^T X_h^T, the head's own channels X_h [N, qk_dim] and a learned lower-triangular L.
- `gram`: X X^T, the same for every head and without weights.
"""


class Ranks(Record):
    """Rank of each linear of a block; `None` means dense."""

    qkv: Width | None = None
    proj: Width | None = None
    fc1: Width | None = None
    fc2: Width | None = None


class StoredFactor(Record):
    """The block keeps the Cholesky factor of its tokens' A = x x^T + epsilon I, and does not use it."""

    kind: Literal["cholesky"] = "cholesky"
    epsilon: Annotated[float, Field(gt=0)] = 1e-3
    """Relative to the mean of the diagonal of x x^T."""


class Truncation(Record):
    """The block truncates an activation to `rank`: the attention output (`svd`) or the scores x x^T (`pca`, `tensor`)."""

    kind: Literal["pca", "svd", "tensor"]
    rank: Width
    form: Literal["exact", "matmul"] = "exact"
    """By eigenvectors, or by matrix products alone, which is what a graph without such an operator can hold."""


Online = Annotated[StoredFactor | Truncation, Field(discriminator="kind")]
"""A decomposition of activations at every forward pass, as in the slide deck: see `vitnla.model.deck`."""


class BlockConfig(Record):
    """One encoder block: attention of `heads` heads, then an MLP of `mlp_dim` hidden units.

    `qk_dim` and `v_dim` are widths per head, so a block may have narrower queries and keys than values.
    """

    heads: Width
    qk_dim: Width
    v_dim: Width
    mlp_dim: Width
    ranks: Ranks = Ranks()
    attention: AttentionKind = "standard"
    online: Online | None = None

    @model_validator(mode="after")
    def _scores_to_truncate(self) -> Self:
        if isinstance(self.online, Truncation) and self.online.kind != "svd" and self.attention != "gram":
            raise ValueError(f"online '{self.online.kind}' truncates the scores of attention 'gram', but got '{self.attention}'")
        return self

    @property
    def query_key_widths(self) -> tuple[int, ...]:
        """Features that `qkv` computes before the values, all heads together: queries and keys, queries alone, or neither."""
        projections = {"standard": 2, "symmetric": 1, "cholesky": 0, "gram": 0}[self.attention]
        return (self.heads * self.qk_dim,) * projections

    def linear_shapes(self, dim: int) -> dict[LinearName, tuple[int, int]]:
        """(out_features, in_features) of each linear, for a residual stream of width `dim`."""
        return {
            "qkv": (sum(self.query_key_widths) + self.heads * self.v_dim, dim),
            "proj": (dim, self.heads * self.v_dim),
            "fc1": (self.mlp_dim, dim),
            "fc2": (dim, self.mlp_dim),
        }


class AttentionPoolConfig(Record):
    """Pooling by one learned query that attends to the patches, then an MLP on the residual sum (SigLIP's head).

    Its width `dim` is its own, so that a narrower residual stream leaves it as it was.
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
    """`layer` is LayerNorm; `rms` divides by the root mean square alone, which `pca-slice` turns every LayerNorm into."""
    norm_eps: Annotated[float, Field(gt=0)] = 1e-6
    head_hidden: Width | None = None
    """Hidden width of the MLP head; `None` is a single linear layer."""
    attention_pool: AttentionPoolConfig | None = None
    """For pooling `map`."""
    embed_norm: bool = False
    """A LayerNorm between the embedding and the first block, as in CLIP."""
    final_norm: FinalNorm = "tokens"
    ignore_remainder: bool = False
    """Pixels right of and below the last whole patch are not read; otherwise there must be none."""

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
            for name, (rows, columns) in block.linear_shapes(self.dim).items():
                rank = getattr(block.ranks, name)
                if rank is not None and rank > min(rows, columns):
                    raise ValueError(f"blocks.{index}.{name}: rank must be at most {min(rows, columns)}, but got {rank}")
            if block.attention == "cholesky" and block.heads * block.qk_dim != self.dim:
                width = block.heads * block.qk_dim
                raise ValueError(
                    f"blocks.{index}: attention 'cholesky' splits dim {self.dim} into heads, but got {width} channels"
                )
            if isinstance(block.online, Truncation):
                full = min(self.tokens, self.dim) if block.online.kind == "svd" else self.tokens
                if block.online.rank > full:
                    raise ValueError(f"blocks.{index}.online: rank must be at most {full}, but got {block.online.rank}")
        return self

    @classmethod
    def uniform(
        cls, *, image_size: int, patch_size: int, channels: int, classes: int, dim: int, depth: int, heads: int,
        mlp_ratio: float = 4.0, class_token: bool = True, registers: int = 0, pooling: Pooling = "cls",
        activation: Activation = "gelu", layer_scale: bool = False, norm_eps: float = 1e-6, head_hidden: int | None = None,
        attention_pool: AttentionPoolConfig | None = None, embed_norm: bool = False, final_norm: FinalNorm = "tokens",
        ignore_remainder: bool = False,
    ) -> Self:  # fmt: skip
        """A dense ViT in the usual terms (`dim`, `depth`, `heads`, `mlp_ratio`): all blocks alike.

        Raises:
            InputError: a width is not positive, or `dim` is not a multiple of `heads`.
        """
        if heads < 1 or dim % heads:
            raise InputError(f"dim must be a multiple of heads {heads}, but got {dim}", "change dim or heads")
        try:
            block = BlockConfig(heads=heads, qk_dim=dim // heads, v_dim=dim // heads, mlp_dim=round(dim * mlp_ratio))
            return cls(
                image_size=image_size, patch_size=patch_size, channels=channels, classes=classes, dim=dim,
                blocks=(block,) * depth, class_token=class_token, registers=registers, pooling=pooling,
                activation=activation, layer_scale=layer_scale, norm_eps=norm_eps, head_hidden=head_hidden,
                attention_pool=attention_pool, embed_norm=embed_norm, final_norm=final_norm, ignore_remainder=ignore_remainder,
            )  # fmt: skip
        except ValidationError as error:
            raise InputError(f"model shape: {first_complaint(error)}", "change the named width") from error

    def exportable(self) -> Self:
        """The same model by operators that a graph can hold: no unused factors, truncations by matrix products, gains in the weights."""
        blocks = [block.model_copy(update={"online": _exportable(block.online)}) for block in self.blocks]
        # A truncation stands between proj and the gain, which then cannot become part of proj's weights.
        folded = not any(isinstance(block.online, Truncation) and block.online.kind == "svd" for block in blocks)
        return self.model_copy(update={"blocks": tuple(blocks), "layer_scale": self.layer_scale and not folded})

    @property
    def features(self) -> int:
        """Width of what the head is given."""
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
        """Length of the sequence that the encoder sees."""
        return self.prefix_tokens + self.patches


def _exportable(online: Online | None) -> Online | None:
    return online.model_copy(update={"form": "matmul"}) if isinstance(online, Truncation) else None
