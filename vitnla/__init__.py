"""vitdeploy: Vision Transformers, decomposed ahead of time."""
