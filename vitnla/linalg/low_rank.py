"""Best low-rank forms of a linear map y = W x, with and without the second moments of x.

W is [m, n] (out, in) and C is [n, n], E[x xT] or the covariance of x. All algebra is float64; factors come back in W's
dtype, energies in float64. Nothing here inverts C, which real activations make singular.

Sources: Eckart & Young 1936; Hsu et al. 2022 and Wang et al. 2024 (SVD-LLM) for the whitened form; Chen et al. 2021
(DRONE) and Yu & Wu 2023 (AFM) for the same optimum as a principal component analysis of the outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

from vitnla.common.errors import InputError
from vitnla.linalg.arrays import A, as_float64, finite_float64, namespace
from vitnla.linalg.symmetric import nearest_psd_factor


@dataclass(frozen=True)
class Factors(Generic[A]):
    """Factors of a matrix U V with U: [m, r] and V: [r, n]."""

    U: A
    V: A

    @property
    def product(self) -> A:
        """What, [m, n]."""
        left: Any = self.U
        product: A = left @ self.V
        return product

    @property
    def rank(self) -> int:
        """r, the width between the two."""
        left: Any = self.U
        return int(left.shape[1])


@dataclass(frozen=True)
class OutputBasis(Generic[A]):
    """Orthonormal directions of the output, best first, and the energy of the output along each.

    Args:
        directions: [m, k] float64 with orthonormal columns, k = min(m, n); their span holds every W x.
        energies: [k] float64, descending, not negative. Keeping the first r directions loses exactly `energies[r:].sum()`.
    """

    directions: A
    energies: A


def svd_basis(weight: A) -> OutputBasis[A]:
    """Return the left singular vectors of W and its squared singular values: the basis where nothing is known of x.

    Raises:
        InputError: a weight is not finite.
    """
    return _svd_basis(finite_float64(weight, "weight"))


def whitened_basis(weight: A, second_moment: A) -> OutputBasis[A]:
    """Return the left singular vectors of W L and its squared singular values, for any C = L LT; C may be singular.

    They are the eigenvectors and eigenvalues of W C WT, the principal components of the outputs, so no L is needed. Where
    m > n, W = Q R first, and the eigenvectors of the smaller R C RT are rotated back by Q.

    Raises:
        InputError: a number is not finite, or the shapes do not fit.
    """
    w, c = _weight_and_moment(weight, second_moment)
    xp = namespace(w)
    q, r = xp.linalg.qr(w) if w.shape[0] > w.shape[1] else (None, w)
    output_moment = r @ c @ r.T
    values, vectors = xp.linalg.eigh((output_moment + output_moment.T) / 2)
    vectors = xp.flip(vectors, axis=1)
    return OutputBasis(vectors if q is None else q @ vectors, xp.clip(xp.flip(values), min=0))


def whitened_basis_by_cholesky(weight: A, second_moment: A) -> OutputBasis[A]:
    """Return the same basis by Cholesky whitening (Wang et al. 2024, SVD-LLM): C = L LT, SVD(W L) = U S VT; energies S^2.

    `project` makes U_r U_rT W of it, which is their U_r S_r V_rT L^-1 but needs no inverse: a singular C, whose L is
    singular too, is not damped.

    Raises:
        InputError: a number is not finite, or the shapes do not fit.
    """
    w, c = _weight_and_moment(weight, second_moment)
    return _svd_basis(w @ nearest_psd_factor(c))


def project(weight: A, basis: OutputBasis[A], rank: int) -> Factors[A]:
    """Return What = Q_r (Q_rT W), with Q_r the first `rank` directions; exact where `rank` is min(m, n).

    Raises:
        InputError: `rank` is not in 1 ... min(m, n).
    """
    w, directions = as_float64(weight), as_float64(basis.directions)
    full = directions.shape[1]
    if not 1 <= rank <= full:
        raise InputError(f"rank: expected 1 to {full}, got {rank}", "choose a rank in that range")
    xp, dtype = namespace(w), getattr(weight, "dtype")  # noqa: B009  (a type variable has no attributes)
    kept = directions[:, :rank]
    return Factors(xp.astype(kept, dtype), xp.astype(kept.T @ w, dtype))


def truncated_svd(weight: A, rank: int) -> Factors[A]:
    """Return the nearest matrix of a rank in the Frobenius norm (Eckart & Young), in W's dtype.

    Its squared error is `tail_energy(svd_basis(weight).energies)[rank]`. Raises as `svd_basis` and `project`.
    """
    return project(weight, svd_basis(weight), rank)


def whitened_svd(weight: A, second_moment: A, rank: int) -> Factors[A]:
    """Return the matrix of a rank with the least E|(W - What) x|^2, in W's dtype.

    That is `tail_energy(whitened_basis(...).energies)[rank]`. Raises as `whitened_basis` and `project`.
    """
    return project(weight, whitened_basis(weight, second_moment), rank)


def tail_energy(energies: A) -> A:
    """Return what keeping the first 0, 1, ... k directions loses: [k + 1] float64 sums of the others' `energies` [k]."""
    e = as_float64(energies)
    xp = namespace(e)
    tails: A = xp.flip(xp.cumulative_sum(xp.flip(e), include_initial=True))
    return tails


def retained_energy(energies: A, rank: int) -> float:
    """Return the share of the energy in the first `rank` directions; 1 where there is no energy at all."""
    e = as_float64(energies)
    total = float(e.sum())
    return float(e[:rank].sum()) / total if total > 0 else 1.0


def energies_along(weight: A, directions: A, second_moment: A) -> A:
    """Return E(qT W x)^2, [k] float64, for each column q of `directions`; cutting orthonormal ones loses exactly their sum."""
    w = finite_float64(weight, "weight")
    rows = as_float64(directions).T @ w
    energies: A = namespace(w).clip(((rows @ as_float64(second_moment)) * rows).sum(1), min=0)
    return energies


def output_error(change: A, second_moment: A) -> float:
    """Return E|D x|^2 = tr(D C DT) for a change D = W - What, [m, n]."""
    d = as_float64(change)
    return max(0.0, float(((d @ as_float64(second_moment)) * d).sum()))


def bias_correction(weight: A, factors: Factors[A], mean: A) -> A:
    """Return (W - What) mu, [m] float64: added to the bias, it makes the mean output exact, so that only the covariance is lost."""
    product = as_float64(factors.U) @ as_float64(factors.V)
    correction: A = (as_float64(weight) - product) @ as_float64(mean)
    return correction


def _svd_basis(matrix: Any) -> OutputBasis[Any]:
    left, values, _ = namespace(matrix).linalg.svd(matrix, full_matrices=False)
    return OutputBasis(left, values**2)


def _weight_and_moment(weight: Any, second_moment: Any) -> tuple[Any, Any]:
    w, c = finite_float64(weight, "weight"), finite_float64(second_moment, "second moment")
    columns = w.shape[1]
    if tuple(c.shape) != (columns, columns):
        raise InputError(f"second moment: expected [{columns}, {columns}], got {list(c.shape)}", "calibrate this model")
    return w, c
