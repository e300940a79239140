"""Properties of a model inferred from the names of its outputs."""

from __future__ import annotations

import re
from collections.abc import Sequence

_FEATURE = re.compile(r"feature[\s_-]*\d+", re.IGNORECASE)


def are_features(labels: Sequence[str]) -> bool:
    """Return whether outputs are the features of an embedding ("feature 0", "feature 1", ...) and no classes."""
    return bool(labels) and all(_FEATURE.fullmatch(label) for label in labels)
