"""Lower precisions of a graph, each by the tool of the runtime that it is for."""
