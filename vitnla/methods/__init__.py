"""Decompositions of a trained model, by name."""

from vitnla.methods import auto, cholesky, none, online, pca, pca_slice, svd, symmetric, tensor
from vitnla.methods.base import METHODS, Decomposition, Method

__all__ = [
    "METHODS",
    "Decomposition",
    "Method",
    "auto",
    "cholesky",
    "none",
    "online",
    "pca",
    "pca_slice",
    "svd",
    "symmetric",
    "tensor",
]
