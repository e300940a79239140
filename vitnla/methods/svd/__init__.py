"""`svd`: low-rank linears."""
