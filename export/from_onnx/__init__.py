"""`onnx:FILE`: decomposition of a ViT that exists only as an ONNX graph, on the graph itself, without torch."""
