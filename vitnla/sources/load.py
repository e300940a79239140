"""Loading of a model by its SPEC, as given on the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.checkpoint import WEIGHTS, build, load_checkpoint
from vitnla.model.vit import VisionTransformer
from vitnla.sources.description import LABELS, ORIGIN, PREPROCESSING, Labels, Origin
from vitnla.sources.options import NO_OPTIONS, SourceOptions, choose_labels, choose_preprocessing
from vitnla.sources.source_model import SourceModel
from vitnla.sources.tensors import resampled_positions
from vitnla.sources.timm.hub_folder import is_hub_folder
from vitnla.sources.timm.load import load_timm, load_timm_folder
from vitnla.sources.torchvision.load import load_torchvision
from vitnla.sources.transformers.load import is_transformers_folder, load_hf, load_transformers_folder

ASSETS = Path(__file__).parent.parent / "assets"
PACKAGED = {"demo": ASSETS / "demo-vit", "demo-small": ASSETS / "demo-vit-small"}
"""Models that ship with the package, by their SPEC."""
SMALLER = {"demo": "demo-small"}
"""SPEC of a model -> that of a smaller dense one, trained the same way: a control of every claim about the decomposed model."""
LIBRARIES: dict[str, Callable[[str, SourceOptions], SourceModel]] = {
    "hf": load_hf,
    "timm": load_timm,
    "torchvision": load_torchvision,
}
"""Loaders by the prefix before the colon. Each library is imported only when one of its models is loaded."""
MODEL_SPECS = (
    "demo, demo-small, a folder (checkpoint, bundle, transformers', timm's), hf:FOLDER_OR_ID, timm:NAME[@WEIGHTS], timm:FOLDER or "
    "torchvision:NAME[@WEIGHTS] (WEIGHTS: a .safetensors, .pth, .pth.tar or .ckpt file, or random)"
)


def load_model(spec: str, options: SourceOptions = NO_OPTIONS) -> SourceModel:
    """Load a packaged model (`demo`, `demo-small`), a checkpoint or bundle folder, or a model of another library (see docs/models.md).

    Args:
        spec: the model SPEC.
        options: what the source's files do not say, or say otherwise; docs/models.md says which goes before which.

    Raises:
        InputError: the spec is not understood, or what it names cannot be loaded.
        MissingDependencyError: the library that it names is not installed.
    """
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in LIBRARIES:
        return LIBRARIES[prefix](rest, options)
    if prefix == "onnx" and colon:
        hint = "give the model it was exported from: a checkpoint, a bundle or hf:FOLDER"
        raise InputError(
            f"'{spec}' is a graph, not a model in torch; vitdeploy export takes it, with methods none, svd and cholesky", hint
        )
    if spec in PACKAGED:
        return _load_folder(PACKAGED[spec], spec, options)
    folder = Path(spec)
    if folder.is_dir():
        inside = folder / "checkpoint"  # a bundle carries the checkpoint that it was exported from
        if (folder / "model.onnx").is_file() and not inside.is_dir():
            hint = f"export it anew with onnx:{folder / 'model.onnx'}"
            raise InputError(f"bundle {folder} was made from an ONNX file, so it holds no checkpoint", hint)
        if is_hub_folder(folder):
            return load_timm_folder(folder, spec, options)
        if is_transformers_folder(folder):
            return load_transformers_folder(folder, spec, options)
        return _load_folder(inside if inside.is_dir() else folder, spec, options)
    if folder.is_file():
        hint = f"a file of weights needs the name of its architecture, such as timm:vit_small_patch16_224@{spec}"
        raise InputError(f"'{spec}' is a file, not a model", hint)
    raise InputError(f"unknown model '{spec}': no such folder", f"expected {MODEL_SPECS}; docs/models.md lists models that work")


def load_dense(origin: Origin) -> SourceModel:
    """Return the dense model that a checkpoint was made from.

    Raises:
        InputError: it is no longer there, or its hash differs.
    """
    hint = f"put it back, or correct 'source' in the checkpoint's {ORIGIN}"
    try:
        dense = load_model(origin.source, origin.options)
    except InputError as error:
        message = f"the dense model that this one was made from cannot be loaded: {error.message}"
        raise InputError(message, hint) from error
    if dense.sha256 != origin.source_sha256:
        raise InputError(f"the model at '{origin.source}' is not the dense one that this one was made from", hint)
    return dense


def _load_folder(folder: Path, spec: str, options: SourceOptions) -> SourceModel:
    options.refuse(("model_args", "weights_key"), spec, "a checkpoint's config.json says everything about its architecture")
    model = load_checkpoint(folder)
    found = Preprocessing.read(folder / PREPROCESSING)
    if (found.image_size, found.channels) != (model.config.image_size, model.config.channels):
        raise InputError(
            f"{folder}: {PREPROCESSING} makes {found.channels} x {found.image_size}² images, "
            f"but the model takes {model.config.channels} x {model.config.image_size}²",
            f"correct {PREPROCESSING}",
        )
    digest = hashlib.sha256((sha256_file(folder / WEIGHTS) + model.config.to_json()).encode()).hexdigest()
    origin = Origin.read(folder / ORIGIN) if (folder / ORIGIN).is_file() else None
    if origin is not None and options != NO_OPTIONS:
        hint = "export the dense model with these options, and decompose that"
        raise InputError(f"{spec} was decomposed: it is compared with its dense model, and takes what that one takes", hint)
    model, notes = _resized(model, options.image_size, spec)
    size, channels = model.config.image_size, model.config.channels
    preprocessing = choose_preprocessing(found.model_dump(), options, image_size=size, channels=channels, origin=spec)
    stored = Labels.read(folder / LABELS).labels
    if options.labels is None and len(stored) != model.config.classes:
        raise InputError(
            f"{folder}: expected {model.config.classes} class names in {LABELS}, got {len(stored)}", f"correct {LABELS}"
        )
    labels, _ = choose_labels(stored, options, model.config.classes, spec)
    return SourceModel(spec, digest, model, preprocessing, labels, origin, options, notes)


def _resized(model: VisionTransformer, image_size: int | None, spec: str) -> tuple[VisionTransformer, tuple[str, ...]]:
    """Return the model for images of another size, with positions resampled as in timm."""
    config = model.config
    if image_size is None or image_size == config.image_size:
        return model, ()
    if image_size < config.patch_size:
        raise InputError(
            f"{spec}: expected images of at least one patch, {config.patch_size} px, got {image_size}", "correct --image-size"
        )
    larger = config.model_copy(update={"image_size": image_size, "ignore_remainder": image_size % config.patch_size != 0})
    larger = type(config).model_validate(larger.model_dump())
    tensors = dict(model.state_dict())
    side = image_size // config.patch_size
    tensors["pos_embed"] = resampled_positions(tensors["pos_embed"], config.prefix_tokens, side, antialias=True)
    return build(larger, tensors, spec), (f"positions are resampled from {config.image_size} to {image_size} px, as asked",)
