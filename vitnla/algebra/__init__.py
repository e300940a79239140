"""The algebra of the methods on NumPy arrays, computed in float64. It needs no torch; `vitnla.linalg` is its border to tensors."""
