"""`cholesky`: narrower MLPs by pivoted Cholesky."""
