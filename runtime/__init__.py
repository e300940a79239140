"""Runs and measures bundles. Imports neither `vitnla`'s models nor `export`, and works where torch is not installed."""
