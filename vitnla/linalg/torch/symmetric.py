"""Best symmetric forms of a square matrix, computed in float64.

Sources: Higham 1988 ("Computing a nearest symmetric positive semidefinite matrix", Linear Algebra Appl. 103) for the nearest
PSD matrix; truncating the eigenvalues of least magnitude is Eckart & Young for a symmetric matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitnla.common.errors import InputError
from vitnla.linalg import symmetric as core
from vitnla.linalg.torch.bridge import to_array, to_tensor


@dataclass(frozen=True)
class SignedForm:
    """S = L diag(s) L^T with L: [n, r] float64 and s: [r] of +1 and -1 (or 0 where there was nothing left to keep)."""

    factor: Tensor
    signs: Tensor

    @property
    def product(self) -> Tensor:
        """S, [n, n] float64, symmetric."""
        product: Tensor = (self.factor * self.signs) @ self.factor.T
        return product


def symmetric_part(matrix: Tensor) -> Tensor:
    """See `vitnla.linalg.symmetric.symmetric_part`."""
    return to_tensor(core.symmetric_part(to_array(matrix)), matrix)


def cholesky_factor(matrix: Tensor) -> Tensor:
    """See `vitnla.linalg.symmetric.cholesky_factor`."""
    return to_tensor(core.cholesky_factor(to_array(matrix)), matrix)


def signed_form(matrix: Tensor, second_moment: Tensor, rank: int, *, psd: bool = False) -> SignedForm:
    """The symmetric S of a rank with the least E(x^T (M - S) y)^2 for independent x, y of the same second moment C.

    With C = R R^T that is |R^T (M - S) R|_F, so S = R^-T T_r R^-1 with T_r the eigenvalues of largest magnitude of
    T = R^T sym(M) R, or the largest positive ones where `psd`. R is V sqrt(w) from C = V w V^T; directions that no x
    reaches (w = 0 up to rounding) get nothing.

    Args:
        matrix: M, [n, n].
        second_moment: C, [n, n], symmetric positive semidefinite, may be singular; the identity for plain weights.
        rank: 1 to n.
        psd: keep only positive eigenvalues; with the identity as C and rank n that is the nearest PSD matrix (Higham).

    Raises:
        InputError: a number is not finite, or `rank` is out of range.
    """
    if not 1 <= rank <= len(matrix):
        raise InputError(f"rank: expected 1 to {len(matrix)}, got {rank}", "choose a rank in that range")
    moments, directions = torch.linalg.eigh(symmetric_part(second_moment))
    reached = moments > len(moments) * torch.finfo(torch.float64).eps * moments[-1]
    root = torch.where(reached, moments, 0).sqrt()
    inverse = torch.where(reached, moments, torch.inf).rsqrt()
    core = root[:, None] * (directions.T @ symmetric_part(matrix) @ directions) * root
    values, vectors = torch.linalg.eigh(core)
    chosen = (values.clamp(min=0) if psd else values.abs()).argsort(descending=True)[:rank]
    kept = values[chosen].clamp(min=0) if psd else values[chosen]
    factor = directions @ (inverse[:, None] * vectors[:, chosen]) * kept.abs().sqrt()
    return SignedForm(factor, kept.sign())
