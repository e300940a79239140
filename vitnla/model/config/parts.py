"""Base classes of the kinds of attention, MLP and position: permissions, linears and their cost, and lookup by kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError

from vitnla.common.registry import Registry
from vitnla.common.schema import Record, first_complaint

Width = Annotated[int, Field(ge=1)]
LinearName = Literal["qkv", "proj", "fc1", "fc2"]
LINEARS: tuple[LinearName, ...] = ("qkv", "proj", "fc1", "fc2")
Shape = tuple[int, int]
"""(out_features, in_features) of a linear."""


class Ranks(Record):
    """Rank of each linear of a block; `None` means dense."""

    qkv: Width | None = None
    proj: Width | None = None
    fc1: Width | None = None
    fc2: Width | None = None


def linear_macs(shape: Shape, rank: int | None, tokens: int) -> int:
    """Return the MACs of a linear of (out, in) features over `tokens` tokens: dense, or as two GEMMs through `rank`."""
    rows, columns = shape
    return tokens * (rows * columns if rank is None else rank * (rows + columns))


def linear_parameters(shape: Shape, rank: int | None) -> int:
    """Return the number of parameters of the same linear, bias included."""
    return linear_macs(shape, rank, tokens=1) + shape[0]


@dataclass(frozen=True)
class Permission:
    """Permission to change a part of a model: true, or false with the reason in `refusal`."""

    refusal: str | None = None

    def __bool__(self) -> bool:
        return self.refusal is None


ALLOWED = Permission()
UNDECLARED = Permission("it does not declare that this keeps what it computes")
"""Default of every permission of a new kind, until the kind declares another."""


class KindConfig(Record, ABC):
    """The config of one kind of a family; `kind` is its name, by which layers and operators are registered."""

    family: ClassVar[str]
    kind: str

    @property
    def label(self) -> str:
        """Family and kind, for messages."""
        return f"{self.family} '{self.kind}'"


class BlockPart(KindConfig, ABC):
    """A residual branch of an encoder block: its linears, their cost, and permissions to narrow its parts."""

    can_slice_stream: ClassVar[Permission] = UNDECLARED
    """Permission to rotate and narrow the residual stream: true where its linears alone read and write the stream."""

    @abstractmethod
    def linears(self, dim: int) -> dict[LinearName, Shape]:
        """Return the shape of each linear, in the order in which they run, for a residual stream of width `dim`."""

    @abstractmethod
    def macs_per_unit(self, dim: int) -> dict[str, int]:
        """Return the MACs per token of one unit of each width that can be narrowed by units, by the width's name."""

    def largest_ranks(self, dim: int) -> dict[LinearName, int]:
        """Return the largest rank that each linear accepts; a linear that is absent must stay dense."""
        return {name: min(shape) for name, shape in self.linears(dim).items()}

    def macs(self, name: LinearName, dim: int, rank: int | None) -> int:
        """Return the MACs per token of one linear, `own_macs` included."""
        return linear_macs(self.linears(dim)[name], rank, tokens=1) + self.own_macs().get(name, 0)

    def parameters(self, name: LinearName, dim: int, rank: int | None) -> int:
        """Return the number of parameters of one linear, bias and `own_parameters` included."""
        return linear_parameters(self.linears(dim)[name], rank) + self.own_parameters().get(name, 0)

    def own_macs(self) -> dict[LinearName, int]:
        """Return the MACs per token beside those of the linears, such as X_h L_h, by the linear they replace."""
        return {}

    def own_parameters(self) -> dict[LinearName, int]:
        """Return the number of parameters beside those of the linears, by the linear they replace."""
        return {}

    def accepts_stream(self, dim: int) -> Permission:
        """Return whether this part can read a residual stream of that width, with the reason where it cannot."""
        return ALLOWED


K = TypeVar("K", bound=KindConfig)


class Kinds(Registry[type[K]]):
    """The configs of one family by the name of their kind; `resolve` makes it a discriminated field of a record."""

    def register(self, config: type[K]) -> type[K]:
        """Add a config class under the default of its field `kind`; to be used as a decorator."""
        return self.add(config.model_fields["kind"].default, config)

    def resolve(self, value: Any) -> Any:
        """Turn a mapping with the key `kind` into the config of that kind; anything else passes.

        Raises:
            ValueError: the kind is unknown, or a value does not fit it.
        """
        if not isinstance(value, Mapping):
            return value
        name = str(value.get("kind"))
        if name not in self:
            raise ValueError(f"unknown {self.kind} '{name}', choose one of: {', '.join(sorted(self))}")
        try:
            return self[name].model_validate(dict(value))
        except ValidationError as error:
            raise ValueError(first_complaint(error)) from error
