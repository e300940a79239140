"""Pure functions on matrices, computed in float64."""
