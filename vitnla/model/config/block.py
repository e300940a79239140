"""One encoder block: an attention, then an MLP, each of some kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import SerializationInfo, model_serializer, model_validator

from vitnla.common.schema import Record
from vitnla.model.config.attention import ATTENTION_KINDS, AttentionField
from vitnla.model.config.mlp import MLP_KINDS, MlpField, PlainMlpConfig
from vitnla.model.config.online import Online
from vitnla.model.config.parts import BlockPart, Kinds, LinearName, Ranks, Shape


class BlockConfig(Record):
    """One encoder block, stored flat: the widths of attention and MLP in one mapping, and the names of their kinds.

    `{"heads": 2, "qk_dim": 8, "v_dim": 8, "mlp_dim": 32, "ranks": {}, "attention": "standard", "online": null}` has been the
    form of every config.json since the first; `mlp` names the MLP's kind where it is not `plain`. The same form validates.
    """

    attention: AttentionField
    mlp: MlpField
    ranks: Ranks = Ranks()
    online: Online | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_stored(cls, values: Any) -> Any:
        """Gather the flat widths into the configs of their kinds."""
        if not isinstance(values, Mapping):
            return values
        left = dict(values)
        left["attention"] = _gathered(left, ATTENTION_KINDS, left.pop("attention", "standard"))
        left["mlp"] = _gathered(left, MLP_KINDS, left.pop("mlp", "plain"))
        return left

    @model_serializer(mode="plain")
    def _stored(self, info: SerializationInfo) -> dict[str, Any]:
        attention, mlp = (part.model_dump(mode=info.mode, exclude={"kind"}) for part in (self.attention, self.mlp))
        online = self.online and self.online.model_dump(mode=info.mode)
        kinds = {"attention": self.attention.kind} | ({} if type(self.mlp) is PlainMlpConfig else {"mlp": self.mlp.kind})
        return {**attention, **mlp, "ranks": self.ranks.model_dump(mode=info.mode), **kinds, "online": online}

    @model_validator(mode="after")
    def _scores_to_truncate(self) -> Self:
        if self.online is not None and self.online.site == "scores" and not self.attention.has_gram_scores:
            kind = self.attention.kind
            raise ValueError(f"online '{self.online.kind}' truncates the scores of attention 'gram', but got '{kind}'")
        return self

    @property
    def heads(self) -> int:
        """Heads of the attention."""
        return self.attention.heads

    @property
    def qk_dim(self) -> int:
        """Width of queries and keys per head."""
        return self.attention.qk_dim

    @property
    def v_dim(self) -> int:
        """Width of values per head."""
        return self.attention.v_dim

    @property
    def mlp_dim(self) -> int:
        """Hidden units of the MLP."""
        return self.mlp.mlp_dim

    def part(self, name: LinearName) -> BlockPart:
        """Return the part, attention or MLP, that has the linear of that name."""
        return self.attention if name in ("qkv", "proj") else self.mlp

    def linear_shapes(self, dim: int) -> dict[LinearName, Shape]:
        """Return (out_features, in_features) of each linear, for a residual stream of width `dim`."""
        return {**self.attention.linears(dim), **self.mlp.linears(dim)}

    def macs_per_unit(self, dim: int) -> dict[str, int]:
        """Return the MACs per token of one unit of `qk_dim`, `v_dim` and `mlp_dim`, see `BlockPart.macs_per_unit`."""
        return {**self.attention.macs_per_unit(dim), **self.mlp.macs_per_unit(dim)}

    def complaints(self, tokens: int, dim: int) -> Iterator[tuple[str, str]]:
        """Yield what does not fit a sequence of `tokens` tokens of width `dim`, as (place in the block, reason)."""
        for part in (self.attention, self.mlp):
            largest = part.largest_ranks(dim)
            for name in part.linears(dim):
                rank = getattr(self.ranks, name)
                if rank is not None and name not in largest:
                    yield f".{name}", f"{part.label} has no low-rank form of it, but got rank {rank}"
                elif rank is not None and rank > largest[name]:
                    yield f".{name}", f"rank must be at most {largest[name]}, but got {rank}"
            if (refusal := part.accepts_stream(dim).refusal) is not None:
                yield "", f"{part.label} {refusal}"
        if self.online is not None and (refusal := self.online.accepts(tokens, dim).refusal) is not None:
            yield ".online", refusal

    def changed(self, **fields: Any) -> Self:
        """Return the block with some fields replaced, named as in the stored form: `qk_dim=8` or `attention="symmetric"`.

        Raises:
            ValidationError: there is no such field, or the values do not fit each other.
        """
        return self.model_validate({**self.model_dump(), **fields})

    def resized(self, sizes: Mapping[str, int]) -> Self:
        """Return the block with the widths and ranks in `sizes`, without validation, to compute the costs of many sizes fast."""
        parts = {
            field: part.model_copy(update={name: size for name, size in sizes.items() if name in type(part).model_fields})
            for field, part in (("attention", self.attention), ("mlp", self.mlp))
        }
        ranks = {name: size for name, size in sizes.items() if name in Ranks.model_fields}
        return self.model_copy(update={**parts, "ranks": self.ranks.model_copy(update=ranks)})

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some of the four fields replaced, without validation.

        Raises:
            TypeError: `update` names a width, which is a field of the attention or of the MLP: pydantic would ignore it.
        """
        if unknown := set(update or ()) - set(type(self).model_fields):
            raise TypeError(f"BlockConfig has no field {sorted(unknown)}; use changed() for widths")
        return super().model_copy(update=update, deep=deep)


def _own_fields(part: type[BlockPart]) -> list[str]:
    return [name for name in part.model_fields if name != "kind"]


def _gathered(values: dict[str, Any], kinds: Kinds[Any], part: Any) -> Any:
    """Return a part as a mapping for `Kinds.resolve`, with its fields taken out of `values`; a config is returned unchanged."""
    if not isinstance(part, str):
        return part
    fields = _own_fields(kinds[part]) if part in kinds else []
    return {"kind": part, **{name: values.pop(name) for name in fields if name in values}}
