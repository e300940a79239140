"""Training a canonical ViT from scratch, resumably, on a CPU or a CUDA device."""
