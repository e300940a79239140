"""`vitnla.linalg.mlp_curve` for the MLP of a block: some hidden units are kept unchanged, and fc2 is refitted for them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vitnla.calibration.statistics import Statistics
from vitnla.linalg.mlp_curve import MlpCurve
from vitnla.methods.cholesky.config import DAMPING
from vitnla.methods.parts.model_edit import BlockChange, dense_linear
from vitnla.methods.parts.narrowed import UNCHANGED, Narrowed
from vitnla.methods.parts.report_rows import affine
from vitnla.methods.parts.requirements import require_permission
from vitnla.model.vit import VisionTransformer


@dataclass(frozen=True, eq=False)
class NarrowMlp:
    """One block's MLP at every width."""

    curve: MlpCurve[Tensor]

    def at(self, width: int) -> Narrowed:
        """Return the MLP with `width` hidden units, 1 ... mlp_dim; unchanged at mlp_dim.

        The error and the retained energy are those of fc2's output, for fc1 and fc2 alike.
        """
        if width == self.curve.full:
            return UNCHANGED
        fit = self.curve.at(width)
        change = BlockChange({"fc1": fit.first, "fc2": fit.second}, mlp_dim=width)
        return Narrowed(change, dict.fromkeys(change.linears, fit.error), dict.fromkeys(change.linears, fit.retained))


def narrow_mlp(model: VisionTransformer, block: int, statistics: Statistics, damping: float = DAMPING) -> NarrowMlp:
    """Order the hidden units of a block by pivoted Cholesky and compute the loss at every width.

    Raises:
        InputError: the kind of the MLP does not allow it, fc1 or fc2 is low-rank, or a number is not finite.
    """
    require_permission(model.config.can_narrow_units(block), f"block {block}", "an MLP whose hidden units may be left out")
    fc1, fc2 = (affine(dense_linear(model, (block, name))) for name in ("fc1", "fc2"))
    return NarrowMlp(MlpCurve.of(fc1, fc2, statistics.linears[block, "fc2"], damping))
