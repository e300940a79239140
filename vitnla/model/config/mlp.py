"""The kinds of MLP."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, SerializeAsAny

from vitnla.model.config.parts import ALLOWED, UNDECLARED, BlockPart, Kinds, LinearName, Permission, Shape, Width


class MlpConfig(BlockPart):
    """An MLP of `mlp_dim` hidden units: one linear `fc1` into them, one linear `fc2` out of them."""

    family: ClassVar[str] = "MLP"
    can_narrow_units: ClassVar[Permission] = UNDECLARED
    """Permission to drop hidden units: true where a unit depends on its own row of `fc1` alone and reaches the output only
    by its column of `fc2`."""

    mlp_dim: Width


MLP_KINDS: Kinds[MlpConfig] = Kinds("MLP")
MlpField = Annotated[SerializeAsAny[MlpConfig], BeforeValidator(MLP_KINDS.resolve)]
"""A field that holds any registered kind."""


@MLP_KINDS.register
class PlainMlpConfig(MlpConfig):
    """fc2(act(fc1(x)))."""

    kind: Literal["plain"] = "plain"
    can_narrow_units: ClassVar[Permission] = ALLOWED
    can_slice_stream: ClassVar[Permission] = ALLOWED

    def linears(self, dim: int) -> dict[LinearName, Shape]:
        """Return the shapes of `fc1` and `fc2`, see `BlockPart.linears`."""
        return {"fc1": (self.mlp_dim, dim), "fc2": (dim, self.mlp_dim)}

    def macs_per_unit(self, dim: int) -> dict[str, int]:
        """Return the MACs of a unit of `mlp_dim`: a row of `fc1` and a column of `fc2`."""
        return {"mlp_dim": 2 * dim}
