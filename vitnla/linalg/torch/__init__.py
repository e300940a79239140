"""Pure functions on matrices of tensors, computed in float64; `vitnla.linalg` holds those that need no torch."""

from vitnla.linalg.torch.low_rank import (
    Factors,
    OutputBasis,
    bias_correction,
    cholesky_basis,
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
from vitnla.linalg.torch.score_basis import ScoreBasis, score_basis
from vitnla.linalg.torch.selection import PivotedCholesky, interpolation, pivoted_cholesky

__all__ = [
    "Factors", "OutputBasis", "PivotedCholesky", "ScoreBasis", "bias_correction", "cholesky_basis", "energies_along",
    "interpolation", "output_basis", "output_error", "output_pca_factors", "pivoted_cholesky", "project", "retained_energy",
    "score_basis", "svd_basis", "truncated_svd", "whitened_svd_factors",
]  # fmt: skip
