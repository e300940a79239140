"""What a method can be told, and how that becomes ranks and widths: the same for a model in torch and for an ONNX graph."""
