"""Running of any number of images through a session of fixed batch size."""

from __future__ import annotations

import numpy as np

from runtime.runners.base import Images, Logits, Session


def run_in_batches(session: Session, images: Images, size: int) -> Logits:
    """Return logits [N, classes] of images [N, ...], `size` at a time; the last batch is padded with repetitions.

    A runtime may compile another model for another batch size, whose outputs may differ from those of the timed one.
    """
    return np.concatenate([_run_part(session, images[first : first + size], size) for first in range(0, len(images), size)])


def _run_part(session: Session, images: Images, size: int) -> Logits:
    if len(images) == size:
        return session.run(images)
    return session.run(np.resize(images, (size, *images.shape[1:])))[: len(images)]
