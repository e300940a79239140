"""Calibration images, and the ranges of linears' inputs in a float graph."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator

from export.graph.parity import OnnxModel
from export.graph.trace import INPUT
from runtime.runners.base import Images, Logits

BATCH = 16


@dataclass(frozen=True)
class Calibration:
    """Calibration images in the graph's input format, and the function from graph outputs to logits [B, classes]."""

    images: Images
    read: Callable[[Logits], Logits]

    def head(self, count: int) -> Calibration:
        """Return a calibration with the first images only."""
        return Calibration(self.images[:count], self.read)

    def logits(self, model: Path | bytes) -> Logits:
        """Return the logits [N, classes] of a graph, in batches small enough for the memory of every model."""
        session = OnnxModel(model)
        starts = range(0, len(self.images), BATCH)
        return np.concatenate([self.read(session(self.images[start : start + BATCH])) for start in starts])


class CalibrationImages(CalibrationDataReader):  # type: ignore[misc]  # the package is untyped
    """Calibration images as the data reader of ONNX Runtime's quantisation tools."""

    def __init__(self, images: Images) -> None:
        self._batches = self._split(images)

    def get_next(self) -> dict[str, Images] | None:
        """Return the next batch, or `None` at the end."""
        return next(self._batches, None)

    @staticmethod
    def _split(images: Images) -> Iterator[dict[str, Images]]:
        for start in range(0, len(images), BATCH):
            yield {INPUT: images[start : start + BATCH]}


def input_magnitudes(path: Path, linears: list[onnx.NodeProto], images: Images) -> dict[str, float]:
    """Return node name -> largest |x| of the linear's input over the images.

    Args:
        path: the float graph.
        linears: nodes of that graph.
        images: in the graph's input format.
    """
    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            path, op_types_to_calibrate=sorted({node.op_type for node in linears}),
            augmented_model_path=f"{folder}/augmented.onnx", calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=any(path.parent.glob(f"{path.name}.data")),
        )  # fmt: skip
        calibrator.collect_data(CalibrationImages(images))
        ranges = calibrator.compute_data()
        return {node.name: float(np.abs(ranges[node.input[0]].range_value).max()) for node in linears}
