"""`timm:NAME[@WEIGHTS]` and `timm:FOLDER`: ViTs of timm, built by timm itself."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vitnla.common.errors import InputError
from vitnla.sources.conversion import canonical, require_same_logits, weights_digest
from vitnla.sources.library_models import RANDOM, downloading, fixed_seed, import_library, split_weights
from vitnla.sources.options import NO_OPTIONS, SourceOptions, assumed_preprocessing, choose_labels, choose_preprocessing
from vitnla.sources.source_model import SourceModel
from vitnla.sources.timm.convert import convert_timm
from vitnla.sources.timm.hub_folder import is_hub_folder, read_hub_folder
from vitnla.sources.timm.module import Built, build_default, build_from_file, build_meta
from vitnla.sources.timm.preprocessing import imagenet_labels, timm_preprocessing
from vitnla.sources.weights import weights_sha256


def load_timm(rest: str, options: SourceOptions = NO_OPTIONS) -> SourceModel:
    """Build `NAME` with timm's pretrained weights, `NAME@FILE` with those of a file, `NAME@random` with random ones, or a FOLDER of timm's.

    Raises:
        InputError: the name is unknown, the weights cannot be had or do not fit, or a part is not supported; names it.
        MissingDependencyError: timm is not installed.
    """
    spec = f"timm:{rest}"
    if is_hub_folder(Path(rest)):
        return load_timm_folder(Path(rest), spec, options)
    name, weights = split_weights(rest, "timm")
    timm = _require(name, spec)
    if weights is None or weights == RANDOM:
        options.refuse(("weights_key",), spec, "it chooses weights in a FILE: timm:NAME@FILE")
        with fixed_seed():
            if weights is None:
                build_meta(timm, name, spec)  # an unsupported architecture is refused before gigabytes are downloaded
                with downloading(spec, "timm", name):
                    built = build_default(timm, name, spec, options, pretrained=True)
            else:
                built = build_default(timm, name, spec, options, pretrained=False)
        digest, known = None, imagenet_labels(built.module)
    else:
        built = build_from_file(timm, name, spec, Path(weights), options)
        digest, known = weights_sha256(Path(weights), options.weights_key), None
    assumed = name if digest is not None else None
    return _source(built, spec, options, built.module.pretrained_cfg, digest, known, assumed=assumed)


def load_timm_folder(folder: Path, spec: str, options: SourceOptions) -> SourceModel:
    """Read a folder that timm wrote for the hub.

    Raises:
        InputError: a file is missing or damaged, or a part is not supported; names it.
        MissingDependencyError: timm is not installed.
    """
    hub = read_hub_folder(folder)
    timm = _require(hub.architecture, spec)
    built = build_from_file(timm, hub.architecture, spec, hub.weights, options, hub.model_args)
    digest = weights_sha256(hub.weights, options.weights_key)
    built = Built(built.module, (*hub.notes, *built.notes))
    return _source(built, spec, options, hub.pretrained_cfg, digest, hub.labels)


def _require(name: str, spec: str) -> Any:
    """Return timm, if it has a model of that name."""
    timm = import_library("timm", spec)
    if not timm.is_model(name):
        close = ", ".join(get_close_matches(name, timm.list_models(), 3)) or "see timm.list_models('vit_*')"
        raise InputError(f"{spec}: timm {timm.__version__} has no model '{name}'", f"close to it: {close}")
    return timm


def _source(
    built: Built, spec: str, options: SourceOptions, pretrained_cfg: Any, digest: str | None, labels: tuple[str, ...] | None,
    *, assumed: str | None = None,
) -> SourceModel:  # fmt: skip
    """Return the canonical model, checked against timm's, with preprocessing (of `assumed`, if given) and class names."""
    module = built.module
    converted = convert_timm(module, spec)
    model = canonical(converted, spec)
    require_same_logits(model, module, list(module.blocks), spec)
    config = model.config
    found, notes = timm_preprocessing(pretrained_cfg, config.image_size, config.channels, spec)
    preprocessing = choose_preprocessing(found, options, image_size=config.image_size, channels=config.channels, origin=spec)
    if assumed is not None:
        notes += assumed_preprocessing(preprocessing, options, f"timm's {assumed}")
    if not int(module.num_classes or 0) and (labels is None or len(labels) != config.classes):
        labels = converted.labels
    names, unnamed = choose_labels(labels, options, config.classes, spec)
    return SourceModel(
        spec,
        digest or weights_digest(model),
        model,
        preprocessing,
        names,
        options=options,
        notes=(*built.notes, *notes, *unnamed),
    )
