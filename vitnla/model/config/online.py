"""Decompositions of activations in every forward pass, as in the slide deck: see `vitnla.model.layers.deck`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from vitnla.model.config.parts import ALLOWED, KindConfig, Permission, Width

Site = Literal["input", "scores", "output"]
"""The decomposed activation: the attention's input tokens, its scores, or its output."""


class OnlineConfig(KindConfig):
    """Decomposition of an activation in every forward pass of a block."""

    family: ClassVar[str] = "online"
    can_slice_stream: ClassVar[Permission] = Permission("it decomposes activations of the whole stream")


class StoredFactor(OnlineConfig):
    """The block keeps the Cholesky factor of its tokens' A = x x^T + epsilon I, and does not use it."""

    kind: Literal["cholesky"] = "cholesky"
    epsilon: Annotated[float, Field(gt=0)] = 1e-3
    """Ridge, relative to the mean of the diagonal of x x^T."""

    @property
    def site(self) -> Site:
        """The decomposed activation: the input tokens."""
        return "input"

    def exportable(self) -> None:
        """Return None: an exported graph omits the unused factor."""

    def accepts(self, tokens: int, dim: int) -> Permission:
        """Accept any sequence: nothing is truncated."""
        return ALLOWED


class Truncation(OnlineConfig):
    """The block truncates an activation to `rank`: the attention output (`svd`) or the scores x x^T (`pca`, `tensor`)."""

    kind: Literal["pca", "svd", "tensor"]
    rank: Width
    form: Literal["exact", "matmul"] = "exact"
    """Algorithm: `exact` by eigenvectors, `matmul` by matrix products only, for graphs without an eigenvector operator."""

    @property
    def site(self) -> Site:
        """The decomposed activation: the scores or the output."""
        return "output" if self.kind == "svd" else "scores"

    def exportable(self) -> Truncation:
        """Return the same truncation by matrix products only."""
        return self.model_copy(update={"form": "matmul"})

    def accepts(self, tokens: int, dim: int) -> Permission:
        """Accept a sequence of `tokens` tokens of width `dim` if the rank is at most its full rank."""
        full = min(tokens, dim) if self.site == "output" else tokens
        return ALLOWED if self.rank <= full else Permission(f"rank must be at most {full}, but got {self.rank}")


Online = Annotated[StoredFactor | Truncation, Field(discriminator="kind")]
