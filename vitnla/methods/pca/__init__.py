"""`pca`: narrower attention heads."""
