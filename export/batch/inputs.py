"""Images of an evaluation, and a worker's access to those of its shard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.batch.evaluation_plan import LISTING, Plan, listing_hash
from vitnla.common.errors import InputError
from vitnla.common.notes import note_once
from vitnla.data.dataset import Dataset, Split
from vitnla.data.image_files import ImageFiles, Images, find_images, image_suffixes, skipped_note
from vitnla.data.load import load_data

UNKNOWN = -1
"""Label of an image without a known class."""


@dataclass(frozen=True)
class Shard:
    """Images of one task. Paths are empty if the images are not files; unknown labels are `UNKNOWN`."""

    images: Images
    labels: NDArray[np.int64]
    paths: tuple[str, ...]


def load_images(spec: str, split: str, class_map: Path | None = None) -> tuple[Split, tuple[str, ...]]:
    """Load the images to run with their labels, and the class names.

    Args:
        spec: data SPEC; `folder:DIR` may also be a folder of images without class folders, whose labels are `UNKNOWN`; it has
            no names.
        split: a split's name, or `all` for every image.
        class_map: renames classes of the data, see `vitnla.data.class_mapping.read_class_map`.

    Raises:
        InputError: there is no such data or split.
    """
    if (flat := _flat(spec)) is not None:
        return flat, ()
    data = load_data(spec, class_map)
    return (_all(data) if split == "all" else data.split(split)), data.labels


def numbered(split: Split, columns: tuple[int, ...] | None) -> Split:
    """Return the split with labels in the bundle's class numbering.

    Args:
        split: with labels in the data's class numbering.
        columns: the bundle's class of each class of the data; `None` if they are the same.
    """
    if columns is None:
        return split
    return replace(split, labels=np.asarray(columns, np.int64)[split.labels])


def _flat(spec: str) -> Split | None:
    kind, _, place = spec.partition(":")
    folder = Path(place)
    if kind != "folder" or not folder.is_dir() or any(entry.is_dir() for entry in folder.iterdir()):
        return None
    names, skipped = find_images(folder)
    if not names:
        kinds = ", ".join(sorted(image_suffixes()))
        raise InputError(f"{folder}: expected image files, got none", f"an image ends in one of {kinds}")
    if (note := skipped_note(folder, skipped)) is not None:
        note_once(note)
    return Split(ImageFiles(folder, tuple(names)), np.full(len(names), UNKNOWN, np.int64))


def _all(data: Dataset) -> Split:
    """Return every image once; a training split already contains the calibration images."""
    names = [name for name in data.splits if not (name == "calibration" and "train" in data.splits)]
    parts = [data.splits[name] for name in names]
    labels = np.concatenate([part.labels for part in parts])
    files = [part.images for part in parts if isinstance(part.images, ImageFiles)]
    if files:
        merged = tuple(name for part in files for name in part.names)
        return Split(ImageFiles(files[0].root, merged, files[0].size), labels)
    return Split(np.concatenate([part.pixels() for part in parts]), labels)


def data_hash(split: Split) -> str:
    """Return a hash that identifies the images across runs."""
    if isinstance(split.images, ImageFiles):
        return listing_hash(split.images.names, split.labels.tobytes())
    return split.fingerprint()


def write_listing(folder: Path, plan: Plan, split: Split) -> None:
    """Store paths and labels of files, one row group per shard, so that a worker reads only its own and lists no folders."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(split.images, ImageFiles):
        return
    names, root, schema = (
        split.images.names,
        split.images.root.absolute(),
        pa.schema([("path", pa.string()), ("label", pa.int64())]),
    )
    with pq.ParquetWriter(folder / LISTING, schema) as writer:
        for number in range(plan.shards):
            chosen = [index % plan.images for index in plan.span(number)]
            columns = [[str(root / names[i]) for i in chosen], split.labels[chosen]]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=plan.shard)


class Inputs:
    """A worker's access to the images: row groups of the listing, or the data set itself if it is one array."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._split = None if plan.files else numbered(load_images(plan.data, plan.split)[0].head(plan.images), plan.columns)
        if self._split is not None and data_hash(self._split) != plan.data_sha256:
            raise InputError(f"data {plan.data} are other ones than when this evaluation began", "begin anew with --force")

    def shard(self, number: int) -> Shard:
        """Return the images of a shard; files are decoded on access."""
        if self._split is not None:
            index = np.array(self._plan.span(number), np.int64) % self._plan.images
            part = self._split.take(index)
            return Shard(part.images, part.labels, ())
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._folder / LISTING) as listing:
            rows = listing.read_row_group(number)
        paths = tuple(rows["path"].to_pylist())
        return Shard(ImageFiles(Path("/"), paths, self._plan.size), rows["label"].to_numpy(), paths)
