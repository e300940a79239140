"""The ONNX graph: tracing, simplifying, checking, inspecting, metadata, and preprocessing inside the graph."""
