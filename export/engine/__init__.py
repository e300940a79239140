"""TensorRT engines: plan, compilation and cache."""
