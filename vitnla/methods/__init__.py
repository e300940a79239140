"""Decompositions of a trained model, by name. The registry needs no torch; a method's module is imported when it is asked for."""

from vitnla.methods.registry import METHODS, Decomposition, Method

__all__ = ["METHODS", "Decomposition", "Method"]
