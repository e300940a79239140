"""Batch inference: every image of a data SPEC through a bundle into Parquet parts, by processes here or by actors of a Ray cluster."""
