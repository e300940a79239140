"""`vitnla.linalg.selection` for tensors."""

from __future__ import annotations

from torch import Tensor

from vitnla.linalg import selection as core
from vitnla.linalg.torch.bridge import to_array, to_tensor

PivotedCholesky = core.PivotedCholesky[Tensor]


def pivoted_cholesky(matrix: Tensor) -> PivotedCholesky:
    """See `vitnla.linalg.selection.pivoted_cholesky`."""
    found = core.pivoted_cholesky(to_array(matrix))
    return PivotedCholesky(*(to_tensor(part, matrix) for part in (found.pivots, found.factor, found.residuals)))


def interpolation(second_moment: Tensor, kept: Tensor, damping: float) -> Tensor:
    """See `vitnla.linalg.selection.interpolation`."""
    return to_tensor(core.interpolation(to_array(second_moment), to_array(kept), damping), second_moment)
