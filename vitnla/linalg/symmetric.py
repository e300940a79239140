"""Best symmetric forms of a square matrix, computed in float64.

Sources: Higham 1988 ("Computing a nearest symmetric positive semidefinite matrix", Linear Algebra Appl. 103) for the nearest
PSD matrix; truncating the eigenvalues of least magnitude is Eckart & Young for a symmetric matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vitnla.common.errors import InputError


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
    """(M + M^T) / 2, the nearest symmetric matrix in every norm |R^T (M - S) R|; [n, n] float64.

    Raises:
        InputError: a number is not finite, or the matrix is not square.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"expected a square matrix, got {list(matrix.shape)}", "report this as a bug")
    if not torch.isfinite(matrix).all():
        raise InputError("expected finite numbers, got NaN or infinity", "check the weights and the calibration images")
    wide = matrix.detach().double()
    return (wide + wide.T) / 2


def cholesky_factor(matrix: Tensor) -> Tensor:
    """Lower-triangular L, diagonal not negative, with L L^T the nearest PSD matrix; singular ones included.

    By QR of its root instead of Cholesky, which breaks down where an eigenvalue is zero: S = V w V^T, (V sqrt(w))^T = Q L^T.
    """
    values, vectors = torch.linalg.eigh(symmetric_part(matrix))
    _, upper = torch.linalg.qr((vectors * values.clamp(min=0).sqrt()).T)
    flip = torch.where(upper.diagonal() < 0, -1.0, 1.0)
    lower: Tensor = (upper * flip[:, None]).T.tril()
    return lower


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
