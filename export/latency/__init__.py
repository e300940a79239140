"""What the operators of a ViT cost on a runtime of this machine, for `--target-latency`."""
