"""TensorRT and TensorRT for RTX: runner, library, CUDA calls, engine inspector."""
