"""`tensor`: a Tucker decomposition of stacked attention heads."""
