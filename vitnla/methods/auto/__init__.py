"""`auto`: a choice of decompositions per layer under one budget."""
