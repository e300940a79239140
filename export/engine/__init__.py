"""TensorRT engines: what is asked for, compiling, and the cache of compiled ones."""
