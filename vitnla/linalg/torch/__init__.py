"""What the array API does not have: gradients through a projector, its form in an exported graph, and a Tucker decomposition."""
