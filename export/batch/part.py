"""Part: the Parquet file of one shard, one row per image, with its sums in the footer so that no reader needs the rows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.batch.inputs import UNKNOWN, Shard
from vitnla.common.errors import MissingDependencyError
from vitnla.common.files import write_atomically
from vitnla.common.schema import Record

if TYPE_CHECKING:
    import pyarrow as pa

_TOP, _KEY = 5, b"vitdeploy"


class PartReport(Record):
    """Counts and resource use of a shard."""

    number: int
    images: int
    unreadable: int
    labelled: int
    """Readable images whose label is known."""
    correct: int
    began: float
    """Seconds since the epoch, by the worker's clock."""
    seconds: float
    """Seconds from reading the first image to the end of the file."""
    peak_rss_mb: float
    """Peak RSS of the worker process since its start, MiB."""


def require_pyarrow() -> None:
    """Check, before any work, that pyarrow is installed, which reads and writes the parts.

    Raises:
        MissingDependencyError: pyarrow is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"evaluate writes Parquet, and cannot here: {error}", "pip install vitdeploy[cluster]"
        ) from error


def schema() -> pa.Schema:
    """Return the columns of every part; predictions are null for unreadable images."""
    import pyarrow as pa

    return pa.schema(
        [
            ("index", pa.int64()), ("path", pa.string()), ("label", pa.int32()), ("predicted", pa.int32()), ("name", pa.string()),
            ("top5", pa.list_(pa.int32())), ("probabilities", pa.list_(pa.float32())), ("error", pa.string()),
        ]
    )  # fmt: skip


def part_bytes(
    indices: range, shard: Shard, values: NDArray[np.float64], errors: dict[int, str], names: tuple[str, ...], report: PartReport
) -> bytes:
    """Return a part as bytes.

    Args:
        indices: of the shard's images in the evaluation.
        shard: its images.
        values: probabilities [N, classes]; rows of unreadable images are ignored.
        errors: position in the shard -> why the image could not be read.
        names: of the classes; empty where the bundle has none.
        report: stored in the footer.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    order = np.argsort(-values, axis=1, kind="stable")[:, :_TOP]
    good = [position not in errors for position in range(len(indices))]
    predicted = [int(row[0]) if ok else None for row, ok in zip(order, good, strict=True)]
    columns = {
        "index": list(indices),
        "path": [*shard.paths] if shard.paths else [None] * len(indices),
        "label": [None if label == UNKNOWN else label for label in shard.labels.tolist()],
        "predicted": predicted,
        "name": [None if one is None or not names else names[one] for one in predicted],
        "top5": [row.tolist() if ok else None for row, ok in zip(order, good, strict=True)],
        "probabilities": [row.astype(np.float32) if ok else None for row, ok in zip(values, good, strict=True)],
        "error": [errors.get(position) for position in range(len(indices))],
    }
    kept = schema().with_metadata({_KEY: report.model_dump_json().encode()})
    stream = io.BytesIO()
    pq.write_table(pa.table(columns, schema=kept), stream, compression="zstd")
    return stream.getvalue()


def write_part(path: Path, content: bytes) -> None:
    """Write a part atomically: a killed worker leaves no part, and a repeated task replaces its own."""
    write_atomically(path, content)


def read_report(path: Path, expected: int) -> PartReport | None:
    """Return the report of a part; `None` if it is missing, damaged or of another length, and has to be made again."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        footer = pq.read_metadata(path)
        if footer.num_rows != expected:
            return None
        return PartReport.model_validate_json(footer.metadata[_KEY])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None


def unreadable_rows(path: Path) -> list[dict[str, object]]:
    """Return index, path and reason of a part's unreadable images."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["index", "path", "error"])
    rows: list[dict[str, object]] = table.filter(pc.field("error").is_valid()).to_pylist()
    return rows
