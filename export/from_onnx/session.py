"""A graph in memory, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from export.graph.files import first_line
from runtime.runners.base import Images, Logits
from runtime.runners.ort_options import new_session_options
from vitnla.common.errors import InputError

Arrays = list[NDArray[np.float32]]


class GraphSession:
    """An ONNX Runtime session of a graph or of a file; the first graph input is the images.

    Args:
        model: the graph, or an ONNX file.
        batch: fixed batch size; `None` for any.
        optimised: whether ONNX Runtime may optimise it. References are computed on the unoptimised graph.
    """

    def __init__(self, model: ir.Model | Path, batch: int | None, *, optimised: bool = True) -> None:
        level = onnxruntime.GraphOptimizationLevel
        options = new_session_options()
        options.graph_optimization_level = level.ORT_ENABLE_ALL if optimised else level.ORT_DISABLE_ALL
        with tempfile.TemporaryDirectory() as folder:
            path = model if isinstance(model, Path) else Path(folder) / "model.onnx"
            if isinstance(model, ir.Model):
                # Weights of 2 GB and more do not fit into one message, so none is kept in it.
                ir.save(model, path, external_data="weights.bin")
            try:
                self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # its exceptions share no base class below Exception
                hint = "check the file with onnx.checker, or export it with another opset"
                raise InputError(f"ONNX Runtime cannot load the graph: {first_line(error)}", hint) from error
        self._batch = batch
        self._input = self._session.get_inputs()[0].name

    def run(
        self, images: Images, outputs: Sequence[str] | None = None, more: dict[str, NDArray[np.float32]] | None = None
    ) -> Arrays:
        """Return the graph outputs of these names (`None` is all) for one batch of a size that the graph supports.

        Raises:
            InputError: the graph refuses the images.
        """
        try:
            found: Arrays = self._session.run(outputs, {self._input: images, **(more or {})})
        except Exception as error:  # see above
            hint = "check the preprocessing, and that the batch is really dynamic: a Reshape may hold the number it was exported with"
            raise InputError(f"the graph cannot run images {list(images.shape)}: {first_line(error)}", hint) from error
        return found

    def __call__(self, images: Images) -> Logits:
        """Return logits [N, classes] of images [N, C, H, W]; a fixed batch is padded with repetitions, whose logits are dropped."""
        if self._batch is None:
            return np.asarray(self.run(images)[0], np.float32)
        parts = []
        for start in range(0, len(images), self._batch):
            part = images[start : start + self._batch]
            full: Images = np.resize(part, (self._batch, *part.shape[1:]))
            parts.append(self.run(full)[0][: len(part)])
        return np.concatenate(parts).astype(np.float32)


def with_outputs(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return a clone whose outputs are the inner values of these names."""
    marked = model.clone()
    values = {str(value.name): value for node in marked.graph for value in node.outputs}
    marked.graph.outputs.clear()
    marked.graph.outputs.extend(values[name] for name in names)
    for name in names:
        # A value without a type is no valid graph output; its shape, often a guess of the exporter, is not needed.
        values[name].type, values[name].shape = ir.TensorType(ir.DataType.FLOAT), None
    return marked
