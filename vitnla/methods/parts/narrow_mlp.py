"""`vitnla.linalg.hidden_units` for the MLP of a block: some hidden units stay as they are, and fc2 is fitted anew for those."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from vitnla.calibration.statistics import Statistics
from vitnla.linalg.hidden_units import UnitChoice
from vitnla.linalg.torch.bridge import to_tensor
from vitnla.methods.cholesky.config import DAMPING
from vitnla.methods.parts.model_edit import BlockChange, Dense, dense_linear
from vitnla.methods.parts.narrowed import UNCHANGED, Narrowed
from vitnla.methods.parts.report_rows import affine
from vitnla.methods.parts.requirements import require_permission
from vitnla.model.vit import VisionTransformer


@dataclass(frozen=True, eq=False)
class NarrowMlp:
    """One block's MLP at every width, from one factorisation."""

    fc1: nn.Linear
    fc2: nn.Linear
    units: UnitChoice

    @property
    def order(self) -> Tensor:
        """[mlp_dim] int64, hidden units, the first one to keep first."""
        return to_tensor(self.units.order, self.fc1.weight)

    @property
    def errors(self) -> Tensor:
        """[mlp_dim + 1] float64, E|error of fc2's output|^2 at every width, see `UnitChoice`."""
        return to_tensor(self.units.errors, self.fc1.weight)

    @property
    def losses(self) -> Tensor:
        """[mlp_dim + 1] float64, `errors` in the unit that all linears share: sensitivity x energy."""
        return to_tensor(self.units.losses, self.fc1.weight)

    def at(self, width: int) -> Narrowed:
        """The MLP with `width` hidden units, 1 ... mlp_dim; unchanged at mlp_dim.

        The error and the retained energy are those of fc2's output, for fc1 and fc2 alike.
        """
        if width == len(self.units.order):
            return UNCHANGED
        found, like = self.units.at(width), self.fc1.weight
        kept = to_tensor(found.kept, like)
        fc1 = Dense(self.fc1.weight[kept], self.fc1.bias[kept])
        fc2 = Dense(to_tensor(found.second.weight, like), to_tensor(found.second.bias, like))
        change = BlockChange({"fc1": fc1, "fc2": fc2}, mlp_dim=width)
        return Narrowed(change, dict.fromkeys(change.linears, found.error), dict.fromkeys(change.linears, found.retained))


def narrow_mlp(model: VisionTransformer, block: int, statistics: Statistics, damping: float = DAMPING) -> NarrowMlp:
    """Order the hidden units of a block by pivoted Cholesky and tell what every width loses.

    Raises:
        InputError: the kind of the MLP does not allow it, fc1 or fc2 is low-rank, or a number is not finite.
    """
    require_permission(model.config.can_narrow_units(block), f"block {block}", "an MLP whose hidden units may be left out")
    fc1, fc2 = dense_linear(model, (block, "fc1")), dense_linear(model, (block, "fc2"))
    return NarrowMlp(fc1, fc2, UnitChoice.of(affine(fc2), statistics.linears[block, "fc2"].moments, damping))
