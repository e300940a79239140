"""Linear algebra of the methods: pure functions on NumPy arrays or torch tensors, computed in float64 by the array's own library.

Every function takes the arrays of one library on one device, and gives arrays of the same. None of them passes a gradient on.
`vitnla.linalg.torch` holds what needs torch itself: a projector with gradients, and TensorLy's Tucker decomposition.
"""
