"""The next share of the dense time to try: a pure search, without input or output."""

from __future__ import annotations

from collections.abc import Mapping

FIRST, STEP, RESOLUTION = 0.6, 0.8, 0.03
"""The first share, its factor per step while within the budget, and the largest final gap between a good and a bad share."""
TAUGHT_RESOLUTION = 0.1
"""Resolution for distilled shares, each of which needs a training run."""
LEAST, MOST = 0.15, 0.95


def next_share(tried: Mapping[float, bool]) -> float | None:
    """Return the next share of the dense time to try, or `None` once the smallest one within the budget is known.

    Up to noise, the loss grows as the share falls. The search steps down until a share is over the budget, or up until one is
    within it, and then bisects between the smallest good share and the largest bad one below it.

    Args:
        tried: share -> whether its loss was within the budget.
    """
    if not tried:
        return FIRST
    good, bad = [share for share, ok in tried.items() if ok], [share for share, ok in tried.items() if not ok]
    if not good:
        higher = round(1 - (1 - max(bad)) * STEP**2, 3)
        return higher if higher <= MOST else None
    deepest = min(good)
    below = [share for share in bad if share < deepest]
    if not below:
        lower = round(deepest * STEP, 3)
        return lower if lower >= LEAST else None
    if deepest - max(below) <= RESOLUTION:
        return None
    return round((deepest + max(below)) / 2, 3)


def next_taught(tried: Mapping[float, bool], taught: Mapping[float, bool]) -> float | None:
    """Return the next share to distil, or `None` when done.

    The first is two steps below the smallest good untrained share; then as `next_share`, to `TAUGHT_RESOLUTION`.

    Args:
        tried: share -> whether its loss was within the budget without training.
        taught: the same for the distilled shares.
    """
    top = min((share for share, ok in tried.items() if ok), default=1.0)
    deepest = min((share for share, ok in taught.items() if ok), default=top)
    if not (bad := [share for share, ok in taught.items() if not ok]):
        lower = round(deepest * (STEP if taught else STEP**2), 3)
        return lower if lower >= LEAST else None
    return round((deepest + max(bad)) / 2, 3) if deepest - max(bad) > TAUGHT_RESOLUTION else None
