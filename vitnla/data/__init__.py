"""Images and labels, and what turns them into a model's input. NumPy only."""
