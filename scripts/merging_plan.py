"""Plans of merging: how many tokens which blocks merge away, and by what they are alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from vitnla.common.errors import InputError
from vitnla.model.config import ViTConfig

Metric = Literal["tokens", "keys"]
_FORM = re.compile(r"(?P<count>\d+)(@(?P<first>\d+)-(?P<last>\d+)(/(?P<step>[1-9]\d*))?)?(?P<keys>:keys)?")


class Plan(NamedTuple):
    """Tokens to merge in each block, and what a block compares them by: what its attention is given, or its keys."""

    counts: tuple[int, ...]
    metric: Metric


def read_plan(text: str, config: ViTConfig) -> Plan:
    """`3` (in every block), `6@0-5` (in blocks 0 to 5), `10@2-8/3` (in blocks 2, 5 and 8), each perhaps with `:keys`.

    A block merges no more than half of the patches that are left.

    Raises:
        InputError: the text is of another form, or names a block that there is not.
    """
    found, depth = _FORM.fullmatch(text), len(config.blocks)
    if found is None:
        raise InputError(f"expected a plan such as 3, 6@0-5, 10@2-8/3 or 3:keys, got '{text}'", "see --help")
    first, last, step = int(found["first"] or 0), int(found["last"] or depth - 1), int(found["step"] or 1)
    if not first <= last < depth:
        raise InputError(f"plan '{text}': expected blocks within 0-{depth - 1}, got {first}-{last}", "name fewer blocks")
    chosen, left, counts = range(first, last + 1, step), config.patches, []
    for block in range(depth):
        counts.append(min(int(found["count"]), left // 2) if block in chosen else 0)
        left -= counts[-1]
    return Plan(tuple(counts), "keys" if found["keys"] else "tokens")


def tokens_share(counts: Sequence[int], tokens: int) -> float:
    """Mean share of `tokens` that the blocks' attentions and MLPs are given."""
    seen, left = 0, tokens
    for count in counts:
        seen += left + (left := left - count)
    return seen / (2 * len(counts) * tokens)


def file_name(text: str) -> str:
    """The plan as a part of a folder's name."""
    return text.replace("/", "s").replace(":", "-")
