"""IDX, the file format of MNIST and Fashion-MNIST: two zero bytes, a type, the number of axes, then sizes and data."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitnla.common.errors import InputError

_UINT8 = 0x08


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Raises:
        InputError: the file is missing, is no IDX file of bytes, or holds fewer or more bytes than its header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is a truncated or damaged gzip file: {error}", "copy the file again") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UINT8:
        raise InputError(
            f"{path} is no IDX file of unsigned bytes (it starts with {raw[:4].hex() or 'nothing'})",
            "expected 0000 08 and the axes",
        )
    axes = raw[3]
    if len(raw) < 4 + 4 * axes:
        raise InputError(f"{path} ends inside its header", "copy the file again")
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    expected, found = math.prod(shape), len(raw) - 4 - 4 * axes
    if expected != found:
        raise InputError(
            f"{path} should hold {expected} bytes of data by its header {shape}, got {found}",
            "the file is truncated; copy it again",
        )
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * axes).reshape(shape)
