"""A narrower MLP: some hidden units stay as they are, and fc2 is fitted anew to make up for the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitnla.calibration.statistics import LinearStatistics, Statistics
from vitnla.linalg import interpolation, output_error, pivoted_cholesky
from vitnla.methods.narrowed import UNCHANGED, Narrowed
from vitnla.methods.rows import relative_error
from vitnla.methods.surgery import BlockChange, Dense, dense_linear
from vitnla.model.vit import VisionTransformer

DAMPING = 1e-6
"""Ridge of the fit, relative to the mean variance of the units that are kept."""


@dataclass(frozen=True, eq=False)
class NarrowMlp:
    """One block's MLP at every width, from one factorisation.

    Args:
        hidden: what calibration saw at the input of fc2.
        damping: see `DAMPING`.
        order: [mlp_dim] int64, hidden units, the first one to keep first.
        errors: [mlp_dim + 1] float64, E|error of fc2's output|^2 at every width but for the damping; it falls to 0, from the
            variance of the output at width 0.
    """

    fc1: nn.Linear
    fc2: nn.Linear
    hidden: LinearStatistics
    damping: float
    order: Tensor
    errors: Tensor

    @property
    def losses(self) -> Tensor:
        """[mlp_dim + 1] float64, `errors` in the unit that all linears share: sensitivity x energy."""
        return self.hidden.sensitivity * self.errors

    def at(self, width: int) -> Narrowed:
        """The MLP with `width` hidden units, 1 ... mlp_dim; unchanged at mlp_dim.

        The error and the retained energy are those of fc2's output, for fc1 and fc2 alike.
        """
        if width == len(self.order):
            return UNCHANGED
        kept = self.order[:width].sort().values
        mean, old = self.hidden.mean, self.fc2.weight.detach().double()
        fitted = old @ interpolation(self.hidden.covariance, kept, self.damping)
        bias = self.fc2.bias.detach().double() + old @ mean - fitted @ mean[kept]
        spread = torch.zeros_like(old).index_copy(1, kept, fitted)
        error = relative_error(self.fc2, spread, bias, self.hidden)
        retained = float(1 - self.errors[width] / self.errors[0]) if self.errors[0] > 0 else 1.0
        fc1 = Dense(self.fc1.weight[kept], self.fc1.bias[kept])
        change = BlockChange({"fc1": fc1, "fc2": Dense(fitted, bias)}, mlp_dim=width)
        return Narrowed(change, dict.fromkeys(change.linears, error), dict.fromkeys(change.linears, retained))


def narrow_mlp(model: VisionTransformer, block: int, statistics: Statistics, damping: float = DAMPING) -> NarrowMlp:
    """Order the hidden units of a block by pivoted Cholesky and tell what every width loses.

    The covariance C of the activations is scaled by the norms of fc2's columns on both sides, so that a unit counts by what
    it writes. With C = L LT in pivot order, k units and the best fc2 for them lose the energy of (W2 L) beyond column k.

    Raises:
        InputError: fc1 or fc2 is low-rank, or a number is not finite.
    """
    fc1, fc2 = dense_linear(model, (block, "fc1")), dense_linear(model, (block, "fc2"))
    hidden = statistics.linears[block, "fc2"]
    weight, covariance = fc2.weight.detach().double(), hidden.covariance
    norms = weight.norm(dim=0)
    chosen = pivoted_cholesky(norms[:, None] * covariance * norms)
    written = (weight / torch.where(norms > 0, norms, 1)) @ chosen.factor
    total = output_error(weight, covariance)
    errors = torch.zeros(len(norms) + 1, dtype=torch.float64)
    errors[0], errors[1 : chosen.rank + 1] = total, total - written.square().sum(0).cumsum(0)
    errors[-1] = 0.0
    return NarrowMlp(fc1, fc2, hidden, damping, chosen.pivots, errors.clamp(min=0))
