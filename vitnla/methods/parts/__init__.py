"""Building blocks that several methods share: narrowing heads and MLPs, low-rank linears, the residual stream, editing a model."""
