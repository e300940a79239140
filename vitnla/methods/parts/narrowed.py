"""Result of narrowing a group of linears: their change, and their errors for the report rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vitnla.methods.parts.model_edit import BlockChange, with_blocks
from vitnla.methods.parts.report_rows import layer_row
from vitnla.methods.registry import Decomposition
from vitnla.model.config import LinearName
from vitnla.model.vit import VisionTransformer


@dataclass(frozen=True)
class Narrowed:
    """A change to one block, with the relative error and the retained energy of every linear that it changes."""

    change: BlockChange
    errors: Mapping[LinearName, float]
    retained: Mapping[LinearName, float]

    def __or__(self, other: Narrowed) -> Narrowed:
        """Combine two changes to different linears."""
        errors, retained = {**self.errors, **other.errors}, {**self.retained, **other.retained}
        return Narrowed(self.change | other.change, errors, retained)


UNCHANGED = Narrowed(BlockChange({}), {}, {})


def narrowed_model(model: VisionTransformer, blocks: Mapping[int, Narrowed]) -> Decomposition:
    """Return the model with some blocks narrowed, and its rows."""
    new = with_blocks(model, {block: part.change for block, part in blocks.items()})
    rows = []
    for block, name in model.linear_names():
        part = blocks.get(block, UNCHANGED)
        error, retained = part.errors.get(name, 0.0), part.retained.get(name, 1.0)
        rows.append(layer_row(new.config, block, name, error, retained, dense=model.config))
    return Decomposition(new, tuple(rows))
