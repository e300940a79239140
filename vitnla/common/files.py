"""Atomic writes and content hashes: a killed or failed write leaves the old file, or none."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from vitnla.common.errors import InputError

_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` beside `path` and rename it into place.

    Raises:
        InputError: the folder cannot be made or written to, or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
            temporary = Path(stream.name)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        _apply_umask(temporary, 0o666)
        temporary.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(destination: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty scratch folder that becomes `destination` when the block ends without an error.

    The scratch folder lies beside the destination, so that the rename is one step on one file system.
    On any exception, Ctrl-C included, it is removed and `destination` is as it was.

    Args:
        destination: the folder to make.
        replace: whether a folder that is already there may be replaced.

    Raises:
        InputError: `destination` exists and `replace` is false, or it cannot be written.
    """
    destination = Path.cwd() / destination  # `tempfile` needs a parent that stays put
    check_free(destination, replace=replace)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
    except OSError as error:
        raise _cannot_write(destination, error) from error
    try:
        _apply_umask(scratch, 0o777)
        yield scratch
        _swap(scratch, destination)
    except OSError as error:
        raise _cannot_write(destination, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_free(destination: Path, *, replace: bool) -> None:
    """Check, before the long work starts, that a destination can be written."""
    if destination.exists() and not destination.is_dir():
        raise InputError(f"{destination} is a file, expected a folder to write", "choose another output folder with -o")
    if destination.exists() and any(destination.iterdir()) and not replace:
        raise InputError(f"{destination} already exists", "pass --force to replace it, or choose another folder with -o")


def _swap(scratch: Path, destination: Path) -> None:
    if not destination.exists():
        scratch.rename(destination)
        return
    old = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}.old."))
    try:
        destination.rename(old / "replaced")
        try:
            scratch.rename(destination)
        except OSError:
            (old / "replaced").rename(destination)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _apply_umask(path: Path, mode: int) -> None:
    """Set the permissions that the umask gives new files; those of `tempfile` are private."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(mode & ~mask)


def _cannot_write(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {error.strerror or error}", "free some space or choose another folder with -o")
