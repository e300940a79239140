"""Decompositions of a trained model, by name."""
