"""Decompositions of a trained model, by name."""

from vitnla.methods import none, svd
from vitnla.methods.base import METHODS, Decomposition, Method

__all__ = ["METHODS", "Decomposition", "Method", "none", "svd"]
