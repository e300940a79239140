"""`none`: the dense baseline."""
