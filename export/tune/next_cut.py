"""How deep to cut next: a pure search over the share of the dense time that is kept."""

from __future__ import annotations

from collections.abc import Mapping

FIRST, STEP, RESOLUTION = 0.6, 0.8, 0.03
"""The first share, what it is multiplied by while the loss allows, and how close the deepest good one is to the next bad one."""
TAUGHT_RESOLUTION = 0.1
"""The same for shares that are distilled, each of which takes a training."""
LEAST, MOST = 0.15, 0.95


def next_share(tried: Mapping[float, bool]) -> float | None:
    """The next share of time to try, or `None` once the deepest one within the budget is known.

    The loss grows as the share falls, but for noise: so steps downwards until one is too much, upwards until one is not, and
    then halving between the deepest good share and the shallowest bad one below it.

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
    """The next share to distil, or `None`: two steps below what was good untrained, then on as above, but less finely.

    Args:
        tried: untrained, share -> whether its loss was within the budget.
        taught: the same of the shares that were distilled.
    """
    top = min((share for share, ok in tried.items() if ok), default=1.0)
    deepest = min((share for share, ok in taught.items() if ok), default=top)
    if not (bad := [share for share, ok in taught.items() if not ok]):
        lower = round(deepest * (STEP if taught else STEP**2), 3)
        return lower if lower >= LEAST else None
    return round((deepest + max(bad)) / 2, 3) if deepest - max(bad) > TAUGHT_RESOLUTION else None
