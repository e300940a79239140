"""Images and labels, and their preprocessing into a model's input. NumPy only."""
