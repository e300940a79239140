"""Reading of third-party ONNX files, with checks that they can be decomposed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from export.graph.files import first_line
from export.graph.inspect import STANDARD_DOMAINS
from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file

PREFIX = "onnx:"
OLDEST_OPSET = 13
"""Oldest supported opset: since then operators take axes in the form that this package writes, and every runtime reads it."""
_QUANTISED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)


@dataclass(frozen=True)
class OnnxSource:
    """A graph from images [B, C, H, W] to logits [B, classes], float32, as read from its file.

    Args:
        spec: `onnx:FILE`.
        sha256: of the file, and of its external data.
        model: the graph, never changed; methods edit clones.
        batch: fixed batch size; `None` if dynamic.
        channels: of the images; `None` if dynamic, as is `size`, the side of the square.
        files: the ONNX file, and those that hold its weights.
    """

    spec: str
    sha256: str
    model: ir.Model
    input: str
    output: str
    batch: int | None
    channels: int | None
    size: int | None
    opset: int
    files: tuple[Path, ...]

    @property
    def metadata(self) -> dict[str, str]:
        """Metadata of the file."""
        return dict(self.model.metadata_props)


def read_source(spec: str) -> OnnxSource:
    """Read `onnx:FILE` for a decomposition.

    Raises:
        InputError: the file is missing or damaged, is no float32 graph from images to logits, is quantised, or holds NaN.
    """
    source = read_graph(spec)
    path = Path(spec.removeprefix(PREFIX))
    if source.opset < OLDEST_OPSET:
        hint = "export it anew with a newer opset, or convert it with onnx.version_converter"
        raise InputError(f"{path}: expected opset {OLDEST_OPSET} or newer, got {source.opset}", hint)
    _fix_weights(source.model)
    _require_operators(path, source.model)
    _require_numbers(path, source.model)
    return source


def read_graph(spec: str) -> OnnxSource:
    """Read `onnx:FILE` to run it unchanged, with any operators, opset and inner precision.

    Raises:
        InputError: the file is missing or damaged, or takes or gives something else than images and logits.
    """
    path = Path(spec.removeprefix(PREFIX))
    if not path.is_file():
        raise InputError(f"no file at {path} for model '{spec}'", "expected onnx:FILE")
    model, files = _load(path)
    image = _only(path, "input", [value for value in model.graph.inputs if not value.is_initializer()])
    logits = _only(path, "output", list(model.graph.outputs))
    batch, channels, size = _image_shape(path, image)
    opset = model.graph.opset_imports.get("", 0)
    return OnnxSource(spec, _digest(files), model, str(image.name), str(logits.name), batch, channels, size, opset, tuple(files))


def _load(path: Path) -> tuple[ir.Model, list[Path]]:
    """Return the model with all weights in memory, and the files that it was read from."""
    hint = "export or copy it again, with its external data beside it"
    try:
        onnx.checker.check_model(str(path))
        model = ir.load(path)
        beside = {Path(tensor.path) for tensor in _tensors(model) if isinstance(tensor, ir.ExternalTensor)}
        # In memory, because a mapped file cannot be let go while arrays still look at it.
        model = ir.external_data.load_to_model(model)
    except (onnx.checker.ValidationError, OSError, ValueError, TypeError, KeyError, ir.serde.SerdeError) as error:
        raise InputError(f"{path} is not a readable ONNX model: {first_line(error)}", hint) from error
    return model, [path, *sorted(beside)]


def _fix_weights(model: ir.Model) -> None:
    """Turn weights that are also graph inputs, and so replaceable by a caller, into weights only (IR version 4 or newer).

    Exporters wrote such weights before IR version 4. Methods replace weights, and a graph input is never dropped as unused.
    """
    for value in [value for value in model.graph.inputs if value.is_initializer()]:
        model.graph.inputs.remove(value)
        model.ir_version = max(model.ir_version, 4)


def _require_operators(path: Path, model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        if node.domain not in STANDARD_DOMAINS:
            hint = "export it with standard operators only, before any optimiser of a runtime"
            raise InputError(f"{path}: expected standard ONNX operators, got '{node.domain}.{node.op_type}'", hint)
        if node.op_type in _QUANTISED:
            hint = "give the float32 model it was made from, and quantise the bundle afterwards"
            raise InputError(f"{path}: expected float32 weights, got a quantised graph ({node.op_type} '{node.name}')", hint)


def _only(path: Path, kind: str, values: list[ir.Value]) -> ir.Value:
    if len(values) != 1:
        names = ", ".join(str(value.name) for value in values) or "none"
        hint = f"keep one with onnx.utils.extract_model; expected images in and logits out, and no other {kind}"
        raise InputError(f"{path}: expected one {kind}, got {len(values)}: {names}", hint)
    return values[0]


def _image_shape(path: Path, image: ir.Value) -> tuple[int | None, int | None, int | None]:
    if image.dtype != ir.DataType.FLOAT or image.shape is None or len(image.shape) != 4:
        found = f"{image.dtype} {None if image.shape is None else list(image.shape)}"
        raise InputError(f"{path}: expected float32 images [B, C, H, W] as input '{image.name}', got {found}", "export it so")
    batch, channels, height, width = (axis if isinstance(axis, int) else None for axis in image.shape)
    if height != width or channels not in (None, 1, 3):
        shape = [axis if isinstance(axis, int) else str(axis) for axis in image.shape]
        hint = "channels come first; 1 or 3 of them, and height equal to width"
        raise InputError(f"{path}: expected square images [B, C, H, W] as input '{image.name}', got {shape}", hint)
    return batch, channels, height


def _require_numbers(path: Path, model: ir.Model) -> None:
    """Check for NaN. Infinities may be intended, as in masks; those in linears are rejected when linears are read."""
    for tensor in _tensors(model):
        array = tensor.numpy()
        if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
            raise InputError(f"{path}: expected numbers, got NaN in '{tensor.name}'", "check the model it was exported from")


def _tensors(model: ir.Model) -> list[ir.TensorProtocol]:
    return [value.const_value for value in model.graph.initializers.values() if value.const_value is not None]


def _digest(files: list[Path]) -> str:
    hashes = [sha256_file(file) for file in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
