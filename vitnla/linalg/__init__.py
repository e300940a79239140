"""Linear algebra of the methods: pure functions on NumPy arrays, computed in float64. `vitnla.linalg.torch` holds what needs tensors."""
