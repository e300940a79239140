"""WordNet synset ids, the names of ImageNet's class folders, and the file that maps them to synonyms."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vitnla.data.formats.text_files import read_lines

SYNSETS = "LOC_synset_mapping.txt"
"""Kaggle's name for it; lines of `n01440764 tench, Tinca tinca`, in the order of the labels."""
_ID = re.compile(r"n\d{8}")


def is_synset(name: str) -> bool:
    """Return whether a name is an id such as `n01440764`."""
    return _ID.fullmatch(name) is not None


def parse_synset(line: str) -> tuple[str, str]:
    """Return the id and the synonyms of a line; both empty where it does not begin with an id."""
    name, _, synonyms = line.strip().partition(" ")
    return (name, synonyms.strip()) if is_synset(name) else ("", "")


def synset_names(folder: Path, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the synonyms of class folders named by ids, where `folder` holds the mapping file; other names are unchanged.

    Raises:
        InputError: the file cannot be read.
    """
    path = folder / SYNSETS
    if not path.is_file() or not all(map(is_synset, classes)):
        return tuple(classes)
    names = dict(map(parse_synset, read_lines(path, "WNID and names")))
    return tuple(names.get(name) or name for name in classes)
