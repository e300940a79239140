"""The suite for a CUDA machine: what its runtimes make of dense and decomposed ViT shapes, against the GPU's own ceiling."""
