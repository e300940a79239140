"""`vitnla.linalg.low_rank` for tensors: what is on the CPU is not copied, what is on a GPU comes back to it."""

from __future__ import annotations

from torch import Tensor

from vitnla.linalg import low_rank as core
from vitnla.linalg.matrices import Float64, Matrix
from vitnla.linalg.torch.bridge import to_array, to_tensor

Factors = core.Factors[Tensor]
OutputBasis = core.OutputBasis[Tensor]


def svd_basis(weight: Tensor) -> OutputBasis:
    """See `vitnla.linalg.low_rank.svd_basis`."""
    return _basis(core.svd_basis(to_array(weight)), weight)


def output_basis(weight: Tensor, second_moment: Tensor) -> OutputBasis:
    """See `vitnla.linalg.low_rank.output_basis`."""
    return _basis(core.output_basis(to_array(weight), to_array(second_moment)), weight)


def cholesky_basis(weight: Tensor, second_moment: Tensor) -> OutputBasis:
    """See `vitnla.linalg.low_rank.cholesky_basis`."""
    return _basis(core.cholesky_basis(to_array(weight), to_array(second_moment)), weight)


def project(weight: Tensor, basis: OutputBasis, rank: int) -> Factors:
    """See `vitnla.linalg.low_rank.project`."""
    arrays = core.OutputBasis(to_array(basis.directions), to_array(basis.energies))
    return _factors(core.project(to_array(weight), arrays, rank), weight)


def energies_along(weight: Tensor, directions: Tensor, second_moment: Tensor) -> Tensor:
    """See `vitnla.linalg.low_rank.energies_along`."""
    return to_tensor(core.energies_along(to_array(weight), to_array(directions), to_array(second_moment)), weight)


def truncated_svd(weight: Tensor, rank: int) -> Factors:
    """See `vitnla.linalg.low_rank.truncated_svd`."""
    return _factors(core.truncated_svd(to_array(weight), rank), weight)


def output_pca_factors(weight: Tensor, second_moment: Tensor, rank: int) -> Factors:
    """See `vitnla.linalg.low_rank.output_pca_factors`."""
    return _factors(core.output_pca_factors(to_array(weight), to_array(second_moment), rank), weight)


def whitened_svd_factors(weight: Tensor, second_moment: Tensor, rank: int) -> Factors:
    """See `vitnla.linalg.low_rank.whitened_svd_factors`."""
    return _factors(core.whitened_svd_factors(to_array(weight), to_array(second_moment), rank), weight)


def output_error(change: Tensor, second_moment: Tensor) -> float:
    """See `vitnla.linalg.low_rank.output_error`."""
    return core.output_error(to_array(change), to_array(second_moment))


def bias_correction(weight: Tensor, factors: Factors, mean: Tensor) -> Tensor:
    """See `vitnla.linalg.low_rank.bias_correction`."""
    arrays = core.Factors(to_array(factors.U), to_array(factors.V))
    return to_tensor(core.bias_correction(to_array(weight), arrays, to_array(mean)), weight)


def retained_energy(energies: Tensor, rank: int) -> float:
    """See `vitnla.linalg.low_rank.retained_energy`."""
    return core.retained_energy(to_array(energies), rank)


def _basis(found: core.OutputBasis[Float64], like: Tensor) -> OutputBasis:
    return OutputBasis(to_tensor(found.directions, like), to_tensor(found.energies, like))


def _factors(found: core.Factors[Matrix], like: Tensor) -> Factors:
    return Factors(to_tensor(found.U, like, like.dtype), to_tensor(found.V, like, like.dtype))
