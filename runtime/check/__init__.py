"""Correctness of a bundle on a runtime: hashes, parity, layer-wise parity, accuracy."""
