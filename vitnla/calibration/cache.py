"""Disk cache of statistics, by the hashes of the model, the images and the preprocessing."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import cast

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitnla.calibration.collect import Progress, collect
from vitnla.calibration.statistics import LinearStatistics, Samples, Statistics
from vitnla.common.cache import cache_key, find_entry, new_entry
from vitnla.common.errors import InputError
from vitnla.data.dataset import Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.config import LinearName
from vitnla.model.vit import VisionTransformer

_KIND, _FILE, _FORMAT = "statistics", "statistics.safetensors", "1"
_log = logging.getLogger(__name__)


def cached_statistics(
    model: VisionTransformer, split: Split, preprocessing: Preprocessing,
    batch_size: int = 32, on_progress: Progress = lambda done, total: None,
) -> Statistics:  # fmt: skip
    """Return the result of `collect`, from the cache where the same model was calibrated on the same images before.

    A damaged entry is computed again, and a cache that cannot be written is not used; both are logged as warnings.
    """
    key = cache_key(_FORMAT, model_hash(model), split.fingerprint(), preprocessing.to_json())
    if (folder := find_entry(_KIND, key)) is not None:
        return replace(read_statistics(folder / _FILE), samples=Samples(split.images, preprocessing))
    statistics = collect(model, split.images, preprocessing, batch_size, on_progress)
    try:
        with new_entry(_KIND, key) as folder:
            write_statistics(statistics, folder / _FILE)
    except InputError as error:
        _log.warning("calibration statistics are not cached: %s", error.message)
    return statistics


def model_hash(model: VisionTransformer) -> str:
    """Return the SHA-256 over the config and every weight: its name, type, shape and bytes."""
    digest = hashlib.sha256(model.config.to_json().encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy())
    return digest.hexdigest()


def write_statistics(statistics: Statistics, path: Path) -> None:
    """Write a safetensors file: `BLOCK.LINEAR.gram` and `.mean` per linear, the scalars in its metadata."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, tuple[int, float]] = {}
    for (block, name), moments in statistics.linears.items():
        prefix = f"{block}.{name}"
        tensors |= {f"{prefix}.gram": moments.gram, f"{prefix}.mean": moments.mean}
        scalars[prefix] = (moments.tokens, moments.sensitivity)
    metadata = {"linears": json.dumps(scalars), "images": str(statistics.images), "tokens": str(statistics.tokens)}
    save_file(tensors, path, metadata)


def read_statistics(path: Path) -> Statistics:
    """Read what `write_statistics` wrote."""
    linears = {}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        for prefix, (tokens, sensitivity) in json.loads(metadata["linears"]).items():
            block, name = prefix.split(".")
            gram, mean = file.get_tensor(f"{prefix}.gram"), file.get_tensor(f"{prefix}.mean")
            linears[int(block), cast(LinearName, name)] = LinearStatistics(gram, mean, tokens, sensitivity)
    return Statistics(linears, int(metadata["images"]), int(metadata["tokens"]))
