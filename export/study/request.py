"""Request of a study: its rows, their data and their order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.results.study import DENSE, StudySettings, row_key
from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.data.dataset import Dataset, Split
from vitnla.data.load import load_data
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.methods.registry import Method, make_config
from vitnla.model.config import ViTConfig
from vitnla.training.config import PRESETS, Preset
from vitnla.training.run import dense_setup

BATCHES = (1, 64)
"""Batch sizes at which inference is measured."""


@dataclass(frozen=True)
class StudyRequest:
    """Request of `vitdeploy study`, as given by the user."""

    data: str
    methods: tuple[str, ...]
    """Names in the registry; empty is all. The baseline is always included."""
    settings: Mapping[str, Mapping[str, Any]]
    """Method name -> fields of its config; missing fields have their defaults."""
    preset: str
    epochs: int | None
    seeds: int
    train_images: int | None
    threads: int
    folder: Path
    command: str


@dataclass(frozen=True)
class Item:
    """A row to make."""

    method: Method[Any]
    config: Record
    seed: int

    @property
    def label(self) -> str:
        """The method and its settings that differ from the default."""
        changed = self.config.model_dump(mode="json", exclude_defaults=True)
        return " ".join([self.method.name, *(f"{name}={value}" for name, value in changed.items())])

    @property
    def key(self) -> str:
        """Key of the row."""
        return row_key(self.label, self.seed)

    @property
    def is_trained(self) -> bool:
        """Whether the row trains its own model; other rows decompose the dense model of their seed."""
        return self.method.name == DENSE or self.method.kind != "deployable"


@dataclass(frozen=True)
class Setup:
    """Setup shared by all rows: images, the dense model's config, and the training settings."""

    data: Dataset
    training: Split
    preset: Preset
    model: ViTConfig
    preprocessing: Preprocessing
    settings: StudySettings


def plan_items(request: StudyRequest) -> list[Item]:
    """Return the rows seed by seed, the baseline first, since deployable methods start from it.

    Raises:
        InputError: a method, or a setting of a method, is unknown.
    """
    names = list(dict.fromkeys([DENSE, *(request.methods or METHODS)]))
    methods = [METHODS[name] for name in names]
    if strays := sorted(set(request.settings) - set(names)):
        raise InputError(f"--set: expected a method of this study, got '{strays[0]}'", f"it has {', '.join(names)}")
    configs = [make_config(method, request.settings.get(method.name, {})) for method in methods]
    pairs = list(zip(methods, configs, strict=True))
    return [Item(method, config, seed) for seed in range(request.seeds) for method, config in pairs]


def load_setup(request: StudyRequest) -> Setup:
    """Load the data and determine the dense model's config.

    Raises:
        InputError: the data lack a split, are not square, or hold fewer training images than asked for.
    """
    changes = {} if request.epochs is None else {"epochs": request.epochs}
    preset = PRESETS[request.preset].with_training(**changes, seed=0)
    data = load_data(request.data)
    training, test = _training(data, request.train_images), data.split("test")
    model, preprocessing = dense_setup(training, len(data.labels), preset)
    settings = StudySettings(
        data=data.name, fingerprint=_fingerprint((training, test)), train_images=len(training), test_images=len(test),
        calibration_images=len(data.split("calibration")), preset=request.preset, training=preset.model_dump(mode="json"),
        batches=BATCHES, threads=request.threads,
    )  # fmt: skip
    return Setup(data, training, preset, model, preprocessing, settings)


def _training(data: Dataset, count: int | None) -> Split:
    whole = data.split("train")
    if count is not None and count > len(whole):
        raise InputError(f"--train-images: expected at most {len(whole):,}, got {count:,}", "leave it out to use all")
    return (whole if count is None else whole.head(count)).in_memory()


def _fingerprint(splits: Sequence[Split]) -> str:
    return hashlib.sha256("".join(split.fingerprint() for split in splits).encode()).hexdigest()
