"""A cache of results that are expensive to compute. Entries carry the hashes of their files; a damaged one is never used."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from vitnla.common.files import atomic_folder, sha256_file, write_atomically

_HASHES = "sha256.json"
_log = logging.getLogger(__name__)


def cache_root() -> Path:
    """Return the folder of the cache: `$VITDEPLOY_CACHE`, else `vitdeploy` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`)."""
    if chosen := os.environ.get("VITDEPLOY_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitdeploy"


def cache_key(*parts: str) -> str:
    """Return one hexadecimal key (SHA-256) of everything that an entry depends on."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def find_entry(kind: str, key: str) -> Path | None:
    """Return the folder of an entry whose files all match their hashes; `None` where it is missing, or (logged) damaged."""
    folder = cache_root() / kind / key
    if not folder.exists():
        return None
    try:
        hashes = json.loads((folder / _HASHES).read_bytes())
        damaged = [name for name, expected in hashes.items() if sha256_file(folder / name) != expected]
    except (OSError, ValueError, AttributeError) as error:
        _log.warning("cache entry %s cannot be read (%s); computing it again", folder, error)
        return None
    if damaged:
        _log.warning("cache entry %s is damaged (%s); computing it again", folder, ", ".join(damaged))
        return None
    return folder


@contextlib.contextmanager
def new_entry(kind: str, key: str) -> Iterator[Path]:
    """Yield an empty folder to write files into; it becomes the entry, hashes included, when the block ends without an error.

    Raises:
        InputError: the cache cannot be written.
    """
    with atomic_folder(cache_root() / kind / key, replace=True) as scratch:
        yield scratch
        hashes = {file.name: sha256_file(file) for file in sorted(scratch.iterdir())}
        write_atomically(scratch / _HASHES, json.dumps(hashes, indent=2))
