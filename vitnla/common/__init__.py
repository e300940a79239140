"""Foundations that every room may use: errors, files, hashes, registries. Standard library and pydantic only."""
