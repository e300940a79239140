"""From a model SPEC, as typed on the command line, to a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.checkpoint import WEIGHTS, load_checkpoint
from vitnla.sources.description import LABELS, ORIGIN, PREPROCESSING, Labels, Origin
from vitnla.sources.hf_dinov2 import load_hf
from vitnla.sources.model import SourceModel

ASSETS = Path(__file__).parent.parent / "assets"
DEMO_MODEL = ASSETS / "demo-vit"


def load_model(spec: str) -> SourceModel:
    """Load `demo`, `hf:FOLDER`, or a checkpoint or bundle folder.

    Raises:
        InputError: the spec is not understood, or what it names cannot be loaded.
    """
    prefix, colon, rest = spec.partition(":")
    adapters: dict[str, Callable[[Path], SourceModel]] = {"hf": load_hf}
    if colon and prefix in adapters:
        return adapters[prefix](Path(rest))
    if prefix == "onnx" and colon:
        hint = "give the model it was exported from: a checkpoint, a bundle or hf:FOLDER"
        raise InputError(
            f"'{spec}' is a graph, not a model in torch; vitdeploy export takes it, with methods none, svd and cholesky", hint
        )
    if spec == "demo":
        return _load_folder(DEMO_MODEL, spec)
    folder = Path(spec)
    if folder.is_dir():
        inside = folder / "checkpoint"  # a bundle carries the checkpoint that it was exported from
        if (folder / "model.onnx").is_file() and not inside.is_dir():
            hint = f"export it anew with onnx:{folder / 'model.onnx'}"
            raise InputError(f"bundle {folder} was made from an ONNX file, so it holds no checkpoint", hint)
        return _load_folder(inside if inside.is_dir() else folder, spec)
    raise InputError(
        f"unknown model '{spec}': no such folder", "expected demo, hf:FOLDER (DINOv2), or a checkpoint or bundle folder"
    )


def load_dense(origin: Origin) -> SourceModel:
    """The dense model that a checkpoint was made from.

    Raises:
        InputError: it is not where it was, or it is another one now.
    """
    hint = f"put it back, or correct 'source' in the checkpoint's {ORIGIN}"
    try:
        dense = load_model(origin.source)
    except InputError as error:
        message = f"the dense model that this one was made from cannot be loaded: {error.message}"
        raise InputError(message, hint) from error
    if dense.sha256 != origin.source_sha256:
        raise InputError(f"the model at '{origin.source}' is not the dense one that this one was made from", hint)
    return dense


def _load_folder(folder: Path, spec: str) -> SourceModel:
    model = load_checkpoint(folder)
    preprocessing = Preprocessing.read(folder / PREPROCESSING)
    labels = Labels.read(folder / LABELS).labels
    if (preprocessing.image_size, preprocessing.channels) != (model.config.image_size, model.config.channels):
        raise InputError(
            f"{folder}: {PREPROCESSING} makes {preprocessing.channels} x {preprocessing.image_size}² images, "
            f"but the model takes {model.config.channels} x {model.config.image_size}²",
            f"correct {PREPROCESSING}",
        )
    if len(labels) != model.config.classes:
        raise InputError(
            f"{folder}: expected {model.config.classes} class names in {LABELS}, got {len(labels)}", f"correct {LABELS}"
        )
    digest = hashlib.sha256((sha256_file(folder / WEIGHTS) + model.config.to_json()).encode()).hexdigest()
    origin = Origin.read(folder / ORIGIN) if (folder / ORIGIN).is_file() else None
    return SourceModel(spec, digest, model, preprocessing, labels, origin)
