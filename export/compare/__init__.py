"""Comparison with alternatives to vitdeploy: other tools' models as bundles for the same bench."""
