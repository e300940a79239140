"""Best low-rank forms of a linear map y = W x, with and without the second moments of x.

W is [m, n] (out, in) and C is [n, n], E[x xT] or the covariance of x. All algebra is float64; factors come back in W's
dtype, energies in float64. Nothing here inverts C, which real activations make singular, except the reference
`whitened_svd_factors`.

Sources: Eckart & Young 1936; Hsu et al. 2022 and Wang et al. 2024 (SVD-LLM) for the whitened form; Chen et al. 2021
(DRONE) and Yu & Wu 2023 (AFM) for the same optimum as a principal component analysis of the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from scipy.linalg import solve_triangular

from vitnla.common.errors import InputError
from vitnla.linalg.matrices import Float64, Matrix, finite_float64
from vitnla.linalg.symmetric import cholesky_factor

M = TypeVar("M")
"""NumPy arrays here, tensors in `vitnla.linalg`."""


@dataclass(frozen=True)
class Factors(Generic[M]):
    """What = U V with U: [m, r] and V: [r, n]."""

    U: M
    V: M

    @property
    def product(self) -> M:
        """What, [m, n]."""
        left: Any = self.U
        product: M = left @ self.V
        return product

    @property
    def rank(self) -> int:
        """r, the width between the two."""
        left: Any = self.U
        return int(left.shape[1])


@dataclass(frozen=True)
class OutputBasis(Generic[M]):
    """Orthonormal directions of the output, best first, and the energy of the output along each.

    Args:
        directions: [m, k] float64 with orthonormal columns, k = min(m, n); their span holds every W x.
        energies: [k] float64, descending, not negative. Keeping the first r directions loses exactly `energies[r:].sum()`.
    """

    directions: M
    energies: M


def svd_basis(weight: Matrix) -> OutputBasis[Float64]:
    """Left singular vectors of W and its squared singular values: the basis where nothing is known of x.

    Raises:
        InputError: a weight is not finite.
    """
    left, values, _ = np.linalg.svd(finite_float64(weight, "weight"), full_matrices=False)
    return OutputBasis(left, np.square(values))


def output_basis(weight: Matrix, second_moment: Matrix) -> OutputBasis[Float64]:
    """Eigenvectors and eigenvalues of W C WT: the principal components of the outputs.

    The energies equal the squared singular values of W L for any C = L LT. Where m > n, W = Q R first, and the
    eigenvectors of the smaller R C RT are rotated back by Q.

    Raises:
        InputError: a number is not finite, or the shapes do not fit.
    """
    w, c = finite_float64(weight, "weight"), finite_float64(second_moment, "second moment")
    rows, columns = w.shape
    if c.shape != (columns, columns):
        raise InputError(f"second moment: expected [{columns}, {columns}], got {list(c.shape)}", "calibrate this model")
    q, r = np.linalg.qr(w) if rows > columns else (np.eye(rows), w)
    output_moment = r @ c @ r.T
    values, vectors = np.linalg.eigh((output_moment + output_moment.T) / 2)
    return OutputBasis(q @ vectors[:, ::-1], values[::-1].clip(min=0))


def cholesky_basis(weight: Matrix, second_moment: Matrix) -> OutputBasis[Float64]:
    """The same basis by Cholesky whitening (Wang et al. 2024, SVD-LLM): C = L LT, SVD(W L) = U S VT; directions U, energies S^2.

    `project` makes U_r U_rT W of it, which is their U_r S_r V_rT L^-1 but needs no inverse: a singular C, whose L is
    singular too, is not damped.

    Raises:
        InputError: a number is not finite.
    """
    w = finite_float64(weight, "weight")
    left, values, _ = np.linalg.svd(w @ cholesky_factor(second_moment), full_matrices=False)
    return OutputBasis(left, np.square(values))


def project(weight: Matrix, basis: OutputBasis[Float64], rank: int) -> Factors[Matrix]:
    """What = Q_r (Q_rT W), with Q_r the first `rank` directions; exact where `rank` is min(m, n).

    Raises:
        InputError: `rank` is not in 1 ... min(m, n).
    """
    full = basis.directions.shape[1]
    if not 1 <= rank <= full:
        raise InputError(f"rank: expected 1 to {full}, got {rank}", "choose a rank in that range")
    directions = basis.directions[:, :rank]
    return Factors(directions.astype(weight.dtype), (directions.T @ weight.astype(np.float64)).astype(weight.dtype))


def energies_along(weight: Matrix, directions: Matrix, second_moment: Matrix) -> Float64:
    """E(qT W x)^2, [k] float64, for each column q of `directions`; cutting orthonormal ones loses exactly their sum."""
    rows = directions.T @ finite_float64(weight, "weight")
    energies: Float64 = ((rows @ second_moment.astype(np.float64)) * rows).sum(1).clip(min=0)
    return energies


def truncated_svd(weight: Matrix, rank: int) -> Factors[Matrix]:
    """The nearest matrix of a rank in the Frobenius norm (Eckart & Young); the loss is `svd_basis(...).energies[rank:].sum()`."""
    return project(weight, svd_basis(weight), rank)


def output_pca_factors(weight: Matrix, second_moment: Matrix, rank: int) -> Factors[Matrix]:
    """The matrix of a rank with the least E|(W - What) x|^2; the loss is `output_basis(...).energies[rank:].sum()`."""
    return project(weight, output_basis(weight, second_moment), rank)


def whitened_svd_factors(weight: Matrix, second_moment: Matrix, rank: int) -> Factors[Matrix]:
    """The same matrix by the textbook route: C = L LT, SVD(W L) = U S VT, What = U_r S_r V_rT L^-1.

    The reference that `output_pca_factors` is tested against; it needs a positive definite C.

    Raises:
        InputError: C is not positive definite in float64.
    """
    w, c = finite_float64(weight, "weight"), finite_float64(second_moment, "second moment")
    try:
        factor = np.linalg.cholesky(c)
    except np.linalg.LinAlgError as error:
        hint = "use output_pca_factors, which needs no inverse"
        raise InputError("second moment: expected a positive definite matrix, got a singular one", hint) from error
    left, values, right = np.linalg.svd(w @ factor, full_matrices=False)
    unwhitened = solve_triangular(factor, right[:rank].T, lower=True, trans="T").T
    return Factors((left[:, :rank] * values[:rank]).astype(weight.dtype), unwhitened.astype(weight.dtype))


def output_error(change: Matrix, second_moment: Matrix) -> float:
    """E|D x|^2 = tr(D C DT) for a change D = W - What, [m, n]."""
    d = change.astype(np.float64, copy=False)
    return max(0.0, float(((d @ second_moment.astype(np.float64, copy=False)) * d).sum()))


def bias_correction(weight: Matrix, factors: Factors[Matrix], mean: Matrix) -> Float64:
    """(W - What) mu, [m] float64: added to the bias, it makes the mean output exact, so that only the covariance is lost."""
    product = factors.U.astype(np.float64) @ factors.V.astype(np.float64)
    correction: Float64 = (weight.astype(np.float64) - product) @ mean.astype(np.float64)
    return correction


def retained_energy(energies: Matrix, rank: int) -> float:
    """Share of the energy in the first `rank` directions; 1 where there is no energy at all."""
    total = float(energies.sum())
    return float(energies[:rank].sum()) / total if total > 0 else 1.0
