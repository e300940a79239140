"""Disk cache of a source model's logits on a split, shared by exports and distillations of one source."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from vitnla.common.cache import cache_key, find_entry, new_entry
from vitnla.common.errors import InputError
from vitnla.data.dataset import Split
from vitnla.model.predict import predict
from vitnla.sources.source_model import SourceModel

_KIND, _FILE, _FORMAT = "dense-predictions", "logits.npy", "2"
_log = logging.getLogger(__name__)


def source_logits(
    source: SourceModel, data: Split, on_progress: Callable[[int, int], None] = lambda done, total: None,
    device: torch.device | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """Return the fp32 torch source's logits [N, classes] on the images of a split, from the cache where present."""
    key = cache_key(_FORMAT, source.sha256, source.model.config.to_json(), source.preprocessing.to_json(), data.fingerprint())
    if (folder := find_entry(_KIND, key)) is not None:
        known: NDArray[np.float32] = np.load(folder / _FILE, allow_pickle=False)
        return known
    logits = predict(source.model, source.preprocessing, data.images, device=device, on_progress=on_progress)
    try:
        with new_entry(_KIND, key) as folder:
            np.save(folder / _FILE, logits)
    except InputError as error:
        _log.warning("predictions are not cached: %s", error.message)
    return logits
