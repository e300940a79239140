"""`onnx:FILE`: a ViT that exists only as an ONNX graph is decomposed on the graph itself. Nothing here imports torch."""
