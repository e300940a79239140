"""`pca-slice`: a narrower residual stream."""
