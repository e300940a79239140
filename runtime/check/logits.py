"""Compare two sets of logits [N, classes]: pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from runtime.runners.base import Logits


def relative_error(logits: Logits, reference: Logits) -> float:
    """Return max |logits - reference| / max |reference|; infinity where any value is not finite."""
    if not (np.isfinite(logits).all() and np.isfinite(reference).all()):
        return float("inf")
    scale = max(float(np.abs(reference).max()), np.finfo(np.float32).tiny)
    return float(np.abs(logits.astype(np.float64) - reference).max() / scale)


def least_cosine(logits: Logits, reference: Logits) -> float:
    """Return the smallest cosine between rows of [N, classes]; 1 where both rows are zero."""
    ours, theirs = logits.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = np.divide((ours * theirs).sum(axis=1), lengths, out=np.ones(len(ours)), where=lengths > 0)
    return float(cosines.min())


def mean_divergence(reference: Logits, logits: Logits) -> float:
    """Return the mean KL divergence, in nats, of softmax(logits) from softmax(reference), both [N, classes]."""
    p, q = (log_softmax(values.astype(np.float64), axis=1) for values in (reference, logits))
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def probabilities(logits: Logits) -> NDArray[np.float64]:
    """Return the class probabilities [N, classes], float64."""
    return np.asarray(softmax(logits.astype(np.float64), axis=1), np.float64)


def are_probabilities(values: Logits) -> bool:
    """Return whether every row of [N, classes] is a distribution: not negative, with a sum of 1 within 0.001."""
    return bool(values.shape[1] > 1 and (values >= 0).all() and (np.abs(values.sum(axis=1, dtype=np.float64) - 1) < 1e-3).all())


def as_log(values: Logits) -> Logits:
    """Return the logarithms of probabilities [N, classes]: logits with the same softmax. Zero counts as the smallest float32."""
    return np.asarray(np.log(np.maximum(values, np.finfo(np.float32).tiny)), np.float32)
