"""Torch code beyond the array API: gradients through a projector, its form in an exported graph, a Tucker decomposition."""
