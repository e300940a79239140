"""Decompositions of activations at every forward pass, as in the slide deck: see `vitnla.model.layers.deck`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitnla.model.config.parts import ALLOWED, KindConfig, Permission, Width

Site = Literal["input", "scores", "output"]
"""What is decomposed: the tokens that the attention is given, its scores, or its output."""


class OnlineConfig(KindConfig):
    """What a block decomposes at every forward pass."""

    family: ClassVar[str] = "online"
    can_slice_stream: ClassVar[Permission] = Permission("it decomposes activations of the whole stream")


class StoredFactor(OnlineConfig):
    """The block keeps the Cholesky factor of its tokens' A = x x^T + epsilon I, and does not use it."""

    kind: Literal["cholesky"] = "cholesky"
    epsilon: Annotated[float, Field(gt=0)] = 1e-3
    """Relative to the mean of the diagonal of x x^T."""

    @property
    def site(self) -> Site:
        """The tokens."""
        return "input"

    def exportable(self) -> None:
        """Nothing: a graph leaves the unused factor out."""

    def accepts(self, tokens: int, dim: int) -> Permission:
        """Any sequence: nothing is truncated."""
        return ALLOWED


class Truncation(OnlineConfig):
    """The block truncates an activation to `rank`: the attention output (`svd`) or the scores x x^T (`pca`, `tensor`)."""

    kind: Literal["pca", "svd", "tensor"]
    rank: Width
    form: Literal["exact", "matmul"] = "exact"
    """By eigenvectors, or by matrix products alone, which is what a graph without such an operator can hold."""

    @property
    def site(self) -> Site:
        """The scores or the output."""
        return "output" if self.kind == "svd" else "scores"

    def exportable(self) -> Truncation:
        """The same by matrix products alone."""
        return self.model_copy(update={"form": "matmul"})

    def accepts(self, tokens: int, dim: int) -> Permission:
        """Whether the rank is at most the full one, for a sequence of `tokens` tokens of width `dim`."""
        full = min(tokens, dim) if self.site == "output" else tokens
        return ALLOWED if self.rank <= full else Permission(f"rank must be at most {full}, but got {self.rank}")


Online = Annotated[StoredFactor | Truncation, Field(discriminator="kind")]
