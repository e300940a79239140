"""A bundle as a Triton Inference Server model repository."""
