"""Writing of ONNX models to disk, checked, with external weights where they are too large for one file."""

from __future__ import annotations

from pathlib import Path

import onnx

from export.graph.inspect import initialiser_bytes
from vitnla.common.errors import VerdictError

EXTERNAL_ABOVE = (2 << 30) - (16 << 20)
"""Weights above this many bytes go into `<model>.data`: protobuf's limit is 2 GiB, less some room for the graph itself."""


def fits_one_file(model: onnx.ModelProto) -> bool:
    """Return whether the model can be serialised as one protobuf message."""
    return initialiser_bytes(model) <= EXTERNAL_ABOVE


def save_model(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Write a model and check the files with `onnx.checker`, shape inference included.

    Returns:
        The files written: `path`, and `path` + `.data` for a model above `EXTERNAL_ABOVE`. In that case `model` is changed:
        its weights become references to that file.

    Raises:
        VerdictError: the model is not valid ONNX.
        OSError: the disk is full.
    """
    external = not fits_one_file(model)
    data = path.with_name(f"{path.name}.data")
    onnx.save_model(model, path, save_as_external_data=external, location=data.name, size_threshold=1024)
    check_file(path)
    return [path, data] if external else [path]


def check_file(path: Path) -> None:
    """Check an ONNX file by its path, which is the only way for one above 2 GB.

    Raises:
        VerdictError: the model is not valid ONNX.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        hint = "report this as a bug, with the command"
        raise VerdictError(f"{path.name} is not valid ONNX: {first_line(error)}", hint) from error


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message; native libraries add many more."""
    return str(error).strip().partition("\n")[0]
