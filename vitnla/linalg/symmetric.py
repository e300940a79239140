"""Best symmetric and positive semidefinite (PSD) forms of a square matrix, and roots that every PSD matrix has.

Sources: Higham 1988 ("Computing a nearest symmetric positive semidefinite matrix", Linear Algebra Appl. 103) for the nearest
PSD matrix; truncating the eigenvalues of least magnitude is Eckart & Young for a symmetric matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

from vitnla.common.errors import InputError
from vitnla.linalg.arrays import EPSILON, A, finite_float64, inverse_sqrt, namespace


@dataclass(frozen=True)
class SignedForm(Generic[A]):
    """S = L diag(s) L^T with L: [n, r] float64 and s: [r] of +1 and -1 (or 0 where there was nothing left to keep)."""

    factor: A
    signs: A

    @property
    def product(self) -> A:
        """S, [n, n] float64, symmetric."""
        factor: Any = self.factor
        product: A = (factor * self.signs) @ factor.T
        return product


def symmetric_part(matrix: A) -> A:
    """Return (M + M^T) / 2, the nearest symmetric matrix in every norm |R^T (M - S) R|; [n, n] float64.

    Raises:
        InputError: a number is not finite, or the matrix is not square.
    """
    m = finite_float64(matrix, "matrix")
    if m.ndim != 2 or m.shape[0] != m.shape[1]:
        raise InputError(f"expected a square matrix, got {list(m.shape)}", "report this as a bug")
    part: A = (m + m.T) / 2
    return part


def psd_root(matrix: A) -> A:
    """Return R, [n, n] float64, with R R^T the PSD matrix nearest to M [n, n]: V sqrt(max(w, 0)) of its symmetric part V w V^T.

    Raises as `symmetric_part`.
    """
    m: Any = symmetric_part(matrix)
    xp = namespace(m)
    values, vectors = xp.linalg.eigh(m)
    root: A = vectors * xp.sqrt(xp.clip(values, min=0))
    return root


def nearest_psd_factor(matrix: A) -> A:
    """Return the lower-triangular L [n, n] float64, diagonal not negative, with L L^T the nearest PSD matrix to M [n, n].

    By QR of its root instead of Cholesky, which breaks down where an eigenvalue is zero: S = R R^T, R^T = Q L^T.

    Raises as `symmetric_part`.
    """
    root: Any = psd_root(matrix)
    xp = namespace(root)
    _, upper = xp.linalg.qr(root.T)
    diagonal = xp.linalg.diagonal(upper)
    flip = xp.where(diagonal < 0, -xp.ones_like(diagonal), xp.ones_like(diagonal))
    factor: A = xp.tril((upper * flip[:, None]).T)
    return factor


def signed_form(matrix: A, second_moment: A, rank: int, *, psd: bool = False) -> SignedForm[A]:
    """Return the symmetric S of a rank with the least E(x^T (M - S) y)^2 for independent x, y of the same second moment C.

    With C = R R^T that is |R^T (M - S) R|_F, so S = R^-T T_r R^-1 with T_r the eigenvalues of largest magnitude of
    T = R^T sym(M) R, or the largest positive ones where `psd`. R is V sqrt(w) from C = V w V^T; directions that no x
    reaches (w = 0 up to rounding) get nothing.

    Args:
        matrix: M, [n, n].
        second_moment: C, [n, n], symmetric PSD, may be singular; the identity for plain weights.
        rank: 1 to n.
        psd: keep only positive eigenvalues; with the identity as C and rank n that is the nearest PSD matrix (Higham).

    Raises:
        InputError: a number is not finite, or `rank` is out of range.
    """
    m, c = symmetric_part(matrix), symmetric_part(second_moment)
    size = len(m)  # type: ignore[arg-type]  # a type variable has no length
    if not 1 <= rank <= size:
        raise InputError(f"rank: expected 1 to {size}, got {rank}", "choose a rank in that range")
    xp = namespace(m)
    moments, directions = xp.linalg.eigh(c)
    reached = moments > size * EPSILON * moments[-1]
    root = xp.sqrt(xp.where(reached, moments, xp.zeros_like(moments)))
    values, vectors = xp.linalg.eigh(root[:, None] * (directions.T @ m @ directions) * root)
    worth = xp.clip(values, min=0) if psd else xp.abs(values)
    chosen = xp.argsort(worth, descending=True)[:rank]
    kept = xp.take(xp.clip(values, min=0) if psd else values, chosen)
    unwhitened = directions @ (inverse_sqrt(moments, reached)[:, None] * xp.take(vectors, chosen, axis=1))
    return SignedForm(unwhitened * xp.sqrt(xp.abs(kept)), xp.sign(kept))
