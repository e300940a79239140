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
from vitnla.sources.source_model import SourceModel
from vitnla.sources.timm.load import load_timm
from vitnla.sources.torchvision.load import load_torchvision
from vitnla.sources.transformers.load import load_hf

ASSETS = Path(__file__).parent.parent / "assets"
PACKAGED = {"demo": ASSETS / "demo-vit", "demo-small": ASSETS / "demo-vit-small"}
"""Models that ship with the package, by their SPEC."""
SMALLER = {"demo": "demo-small"}
"""SPEC of a model -> that of a smaller dense one, trained the same way: a control of every claim about the decomposed model."""
LIBRARIES: dict[str, Callable[[str], SourceModel]] = {"hf": load_hf, "timm": load_timm, "torchvision": load_torchvision}
"""By the word before the colon. The libraries themselves are imported only when a model of theirs is asked for."""
MODEL_SPECS = (
    "demo, demo-small, a checkpoint or bundle folder, hf:FOLDER_OR_ID, timm:NAME[@WEIGHTS] or torchvision:NAME[@WEIGHTS] "
    "(WEIGHTS: a .safetensors or .pth file, or random)"
)


def load_model(spec: str) -> SourceModel:
    """Load a packaged model (`demo`, `demo-small`), a checkpoint or bundle folder, or a model of another library (see docs/models.md).

    Raises:
        InputError: the spec is not understood, or what it names cannot be loaded.
        MissingDependencyError: the library that it names is not installed.
    """
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in LIBRARIES:
        return LIBRARIES[prefix](rest)
    if prefix == "onnx" and colon:
        hint = "give the model it was exported from: a checkpoint, a bundle or hf:FOLDER"
        raise InputError(
            f"'{spec}' is a graph, not a model in torch; vitdeploy export takes it, with methods none, svd and cholesky", hint
        )
    if spec in PACKAGED:
        return _load_folder(PACKAGED[spec], spec)
    folder = Path(spec)
    if folder.is_dir():
        inside = folder / "checkpoint"  # a bundle carries the checkpoint that it was exported from
        if (folder / "model.onnx").is_file() and not inside.is_dir():
            hint = f"export it anew with onnx:{folder / 'model.onnx'}"
            raise InputError(f"bundle {folder} was made from an ONNX file, so it holds no checkpoint", hint)
        return _load_folder(inside if inside.is_dir() else folder, spec)
    raise InputError(f"unknown model '{spec}': no such folder", f"expected {MODEL_SPECS}; docs/models.md lists models that work")


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
