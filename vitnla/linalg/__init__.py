"""Pure functions on matrices, computed in float64."""

from vitnla.linalg.lowrank import (
    Factors,
    OutputBasis,
    bias_correction,
    energies_along,
    output_basis,
    output_error,
    output_pca_factors,
    project,
    retained_energy,
    svd_basis,
    truncated_svd,
    whitened_svd_factors,
)

__all__ = [
    "Factors", "OutputBasis", "bias_correction", "energies_along", "output_basis", "output_error", "output_pca_factors",
    "project", "retained_energy", "svd_basis", "truncated_svd", "whitened_svd_factors",
]  # fmt: skip
