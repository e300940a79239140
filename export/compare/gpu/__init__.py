"""Benchmark suite for a CUDA machine: its runtimes on dense and decomposed ViT shapes, against the GPU's matmul ceiling."""
