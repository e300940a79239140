"""A source model from a module in memory: of timm, of torchvision or our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from vitnla.common.errors import InputError
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.vit import VisionTransformer
from vitnla.sources.conversion import canonical, require_same_logits, weights_digest
from vitnla.sources.source_model import SourceModel
from vitnla.sources.tensors import Converted, numbered_labels
from vitnla.sources.timm.convert import convert_timm
from vitnla.sources.torchvision.load import convert_torchvision
from vitnla.sources.unsupported import unsupported


def from_module(
    module: nn.Module, *, preprocessing: Preprocessing, labels: Sequence[str] | None = None, spec: str | None = None
) -> SourceModel:
    """Convert a trained ViT in memory to the canonical form; the module itself is not changed.

    Args:
        module: a `VisionTransformer` of timm, torchvision or this package.
        preprocessing: its preprocessing of pixels.
        labels: class names in the order of its outputs; `None` numbers them.
        spec: its name in manifests; `None` is the name of its class.

    Raises:
        InputError: a part is not supported, the preprocessing makes images of another size, or the conversion is not exact.
    """
    name = spec or f"module:{type(module).__name__}"
    model, known = _convert(module, name)
    config = model.config
    if (preprocessing.image_size, preprocessing.channels) != (config.image_size, config.channels):
        made, wanted = (f"{channels} x {size}²" for channels, size in (
            (preprocessing.channels, preprocessing.image_size), (config.channels, config.image_size)
        ))  # fmt: skip
        raise InputError(
            f"{name}: the preprocessing makes {made} images, but the model takes {wanted}", "correct the preprocessing"
        )
    names = tuple(labels) if labels is not None else known
    if len(names) != config.classes:
        raise InputError(f"{name}: expected {config.classes} labels, got {len(names)}", "give one for each output")
    return SourceModel(name, weights_digest(model), model, preprocessing, names)


def _convert(module: Any, name: str) -> tuple[VisionTransformer, tuple[str, ...]]:
    """Return the canonical model, checked against the module, and the labels of its outputs."""
    if isinstance(module, VisionTransformer):
        return module.eval(), numbered_labels(module.config.classes)
    library = type(module).__module__.partition(".")[0]
    converted: Converted
    if library == "timm":
        converted, blocks = convert_timm(module, name), list(getattr(module, "blocks", ()))
    elif library == "torchvision":
        converted, blocks = convert_torchvision(module, name), list(module.encoder.layers)
    elif library == "transformers":
        hint = "save it by save_pretrained beside its preprocessor_config.json, and load that folder: load_model('hf:FOLDER')"
        raise InputError(f"{name}: a transformers module is loaded from a folder", hint)
    else:
        raise unsupported(f"{name}: unsupported module {type(module).__module__}.{type(module).__name__}", type(module).__name__)
    model, training = canonical(converted, name), module.training
    try:
        require_same_logits(model, module, blocks, name)
    finally:
        module.train(training)
    return model, converted.labels
