"""Models in the transformers folder format, read without transformers: one module per family."""
