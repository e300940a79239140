"""`torchvision:NAME[@WEIGHTS]`: torchvision's ViTs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitnla.common.errors import InputError, unknown_name
from vitnla.common.preprocessing import Interpolation
from vitnla.model.config import ViTConfig
from vitnla.sources.conversion import canonical, require_same_logits, weights_digest
from vitnla.sources.library_models import RANDOM, downloading, fixed_seed, import_library, split_weights
from vitnla.sources.options import NO_OPTIONS, SourceOptions, assumed_preprocessing, choose_labels, choose_preprocessing
from vitnla.sources.source_model import SourceModel
from vitnla.sources.tensors import BlockNames, Converted, SourceTensors, embedding_labels, identity_head, numbered_labels
from vitnla.sources.torchvision.module import build_from_file, resampled
from vitnla.sources.unsupported import unsupported
from vitnla.sources.weights import weights_sha256

NAMES = ("vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14")
_LAYER = "encoder.layers.encoder_layer_{}"
_BLOCK = BlockNames(
    qkv=(f"{_LAYER}.self_attention.in_proj",), proj=f"{_LAYER}.self_attention.out_proj", norm1=f"{_LAYER}.ln_1",
    norm2=f"{_LAYER}.ln_2", fc1=f"{_LAYER}.mlp.0", fc2=f"{_LAYER}.mlp.3",
)  # fmt: skip
_INTERPOLATIONS: dict[str, Interpolation] = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic"}


def load_torchvision(rest: str, options: SourceOptions = NO_OPTIONS) -> SourceModel:
    """Build `NAME` with its default weights, `NAME@IMAGENET1K_...` with others of torchvision's, `NAME@FILE`, or `NAME@random`.

    Raises:
        InputError: the name is unknown, or the weights cannot be had or do not fit.
        MissingDependencyError: torchvision is not installed, or does not fit the torch that is.
    """
    name, wanted = split_weights(rest, "torchvision")
    spec = f"torchvision:{rest}"
    if not name.startswith("vit_"):
        raise unsupported(f"{spec}: unsupported model '{name}'", name)
    if name not in NAMES:
        raise unknown_name("torchvision model", name, NAMES)
    options.refuse(
        ("model_args",), spec, "torchvision's ViTs pool by the class token; sizes, channels and heads are read from the weights"
    )
    models = import_library("torchvision.models", spec)
    choices = models.get_model_weights(name)
    weights = choices[wanted] if wanted in choices.__members__ else choices.DEFAULT
    transform = weights.transforms()
    size = int(transform.crop_size[0])
    file = Path(wanted) if wanted and wanted != RANDOM and wanted not in choices.__members__ else None
    notes: tuple[str, ...] = ()
    known: tuple[str, ...] | None = tuple(weights.meta["categories"])
    if file is not None:
        built, known = build_from_file(models, name, file, options), None
        module, notes, digest = built.module, built.notes, weights_sha256(file, options.weights_key)
    else:
        options.refuse(("weights_key",), spec, "it chooses weights in a FILE: torchvision:NAME@FILE")
        if wanted == RANDOM:
            module = _random(models, name, options.image_size or size)
        else:
            with downloading(spec, "torchvision", name):
                module = models.get_model(name, weights=weights)
            if options.image_size not in (None, size):
                module = resampled(models, name, module, options.image_size)
                notes = (f"positions are resampled from {size} to {options.image_size} px, as asked",)
        digest = None
    converted = convert_torchvision(module, spec)
    model = canonical(converted, spec)
    require_same_logits(model, module, list(module.encoder.layers), spec)
    config = model.config
    fields = _preprocessing(transform, spec)
    preprocessing = choose_preprocessing(fields, options, image_size=config.image_size, channels=config.channels, origin=spec)
    if file is not None:
        notes += assumed_preprocessing(preprocessing, options, f"torchvision's {weights}")
    labels, unnamed = choose_labels(
        known if not isinstance(module.heads, nn.Identity) else converted.labels, options, config.classes, spec
    )
    return SourceModel(
        spec, digest or weights_digest(model), model, preprocessing, labels, options=options, notes=(*notes, *unnamed)
    )


def convert_torchvision(module: Any, origin: str) -> Converted:
    """Convert a torchvision `VisionTransformer` to the canonical form; classes are numbered.

    Raises:
        InputError: a part is not supported; names it.
    """
    if type(module).__name__ != "VisionTransformer":
        raise unsupported(f"{origin}: unsupported architecture {type(module).__name__}", type(module).__name__)
    if not isinstance(module.conv_proj, nn.Conv2d):
        raise unsupported(f"{origin}: unsupported patch embedding: several convolutions", "ViT")
    tensors = {name.replace("in_proj_", "in_proj."): tensor for name, tensor in module.state_dict().items()}
    source = SourceTensors(tensors, origin, "torchvision's VisionTransformer")
    out = source.linear("conv_proj", "patch_embed") | source.blocks(len(module.encoder.layers), _BLOCK)
    out |= source.linear("encoder.ln", "norm")
    out |= {"prefix": source.take("class_token")[0], "pos_embed": source.take("encoder.pos_embedding")[0]}
    head, hidden, classes = _head(module, source)
    source.done()
    first = module.encoder.layers[0]
    config = ViTConfig.uniform(
        image_size=module.image_size, patch_size=module.patch_size, channels=module.conv_proj.in_channels, classes=classes,
        dim=module.hidden_dim, depth=len(module.encoder.layers), heads=first.self_attention.num_heads,
        mlp_ratio=module.mlp_dim / module.hidden_dim, norm_eps=first.ln_1.eps, head_hidden=hidden,
    )  # fmt: skip
    has_head = any(isinstance(part, nn.Linear) for part in module.heads.modules())
    labels = numbered_labels(classes) if has_head else embedding_labels(classes)
    return Converted(config, out | head, labels)


def _head(module: Any, source: SourceTensors) -> tuple[dict[str, Tensor], int | None, int]:
    """Return head tensors, hidden width, and number of outputs; without a head (`heads = Identity()`) the embedding."""
    linears = [name for name, part in module.heads.named_modules(prefix="heads") if isinstance(part, nn.Linear)]
    if not linears:
        return identity_head(module.hidden_dim), None, module.hidden_dim
    if len(linears) == 1:
        head = source.linear(linears[0], "head")
        return head, None, len(head["head.weight"])
    head = source.linear("heads.pre_logits", "head.0") | source.linear("heads.head", "head.2")
    return head, module.heads.pre_logits.out_features, len(head["head.2.weight"])


def _random(models: Any, name: str, size: int) -> Any:
    """Build with random weights, the head included: torchvision's zero head would give every image the same logits."""
    with fixed_seed():
        module = models.get_model(name, weights=None, image_size=size)
        nn.init.trunc_normal_(module.heads.head.weight, std=0.02)
    return module


def _preprocessing(transform: Any, origin: str) -> dict[str, Any]:
    """Return fields of `Preprocessing`, for the transform's own size."""
    interpolation = transform.interpolation.value
    if interpolation not in _INTERPOLATIONS:
        raise InputError(f"{origin}: unsupported interpolation '{interpolation}'", f"supported: {', '.join(_INTERPOLATIONS)}")
    size, resize = int(transform.crop_size[0]), int(transform.resize_size[0])
    return {
        "image_size": size, "mean": tuple(transform.mean), "std": tuple(transform.std), "interpolation": _INTERPOLATIONS[interpolation],
        "fit": "shortest", "resize_size": None if resize == size else resize, "crop_rounding": "even",
    }  # fmt: skip
