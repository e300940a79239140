"""Latency of a ViT's operators on a runtime of this machine, for `--target-latency`."""
