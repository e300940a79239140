"""The images of an evaluation: which they are, and how a worker gets those of its shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.batch.evaluation_plan import LISTING, Plan, listing_hash
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.image_files import SUFFIXES, ImageFiles, Images
from vitnla.data.load import load_data

UNKNOWN = -1
"""The label of an image that has none."""


@dataclass(frozen=True)
class Shard:
    """Images of one task. Paths are empty where the images are no files; a label that is not known is `UNKNOWN`."""

    images: Images
    labels: NDArray[np.int64]
    paths: tuple[str, ...]


def load_images(spec: str, split: str, classes: tuple[str, ...]) -> Split:
    """The images to run, and their labels as the bundle counts its classes.

    Args:
        spec: data SPEC; `folder:DIR` may also be a folder of images without class folders, which have no labels.
        split: a split's name, or `all` for every image.
        classes: the bundle's labels; empty where it has none.

    Raises:
        InputError: there is no such data or split.
    """
    if (flat := _flat(spec)) is not None:
        return flat
    data = load_data(spec)
    chosen = _all(data) if split == "all" else data.split(split)
    return Split(chosen.images, chosen.labels if data.labels == classes else _matched(chosen.labels, data.labels, classes))


def _flat(spec: str) -> Split | None:
    kind, _, place = spec.partition(":")
    folder = Path(place)
    if kind != "folder" or not folder.is_dir() or any(entry.is_dir() for entry in folder.iterdir()):
        return None
    names = tuple(sorted(file.name for file in folder.iterdir() if file.suffix.lower() in SUFFIXES))
    if not names:
        raise InputError(f"{folder}: expected image files, got none", f"an image ends in one of {', '.join(sorted(SUFFIXES))}")
    return Split(ImageFiles(folder, names), np.full(len(names), UNKNOWN, np.int64))


def _all(data: Dataset) -> Split:
    """Every image once: where there is a training split, it holds the calibration images."""
    names = [name for name in data.splits if not (name == "calibration" and "train" in data.splits)]
    parts = [data.splits[name] for name in names]
    labels = np.concatenate([part.labels for part in parts])
    files = [part.images for part in parts if isinstance(part.images, ImageFiles)]
    if files:
        merged = tuple(name for part in files for name in part.names)
        return Split(ImageFiles(files[0].root, merged, files[0].size), labels)
    return Split(np.concatenate([part.pixels() for part in parts]), labels)


def _matched(labels: NDArray[np.int64], names: tuple[str, ...], classes: tuple[str, ...]) -> NDArray[np.int64]:
    """The same classes by the bundle's numbers, found by name; a class that the bundle does not name has no label."""
    if not classes:  # a bundle without names: numbers are all there is
        return labels
    place = {name: number for number, name in enumerate(classes)}
    return np.array([place.get(name, UNKNOWN) for name in names], np.int64)[labels]


def data_hash(split: Split) -> str:
    """What tells whether the images are those of an earlier run."""
    if isinstance(split.images, ImageFiles):
        return listing_hash(split.images.names, split.labels.tobytes())
    return split.fingerprint()


def write_listing(folder: Path, plan: Plan, split: Split) -> None:
    """Store paths and labels of files, one row group a shard, so that a worker reads its own and no worker lists folders."""
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
    """A worker's view: it reads the listing row group by row group, or holds the data set where that is one array."""

    def __init__(self, folder: Path, plan: Plan, classes: tuple[str, ...]) -> None:
        self._folder, self._plan = folder, plan
        self._split = None if plan.files else load_images(plan.data, plan.split, classes).head(plan.images)
        if self._split is not None and data_hash(self._split) != plan.data_sha256:
            raise InputError(f"data {plan.data} are other ones than when this evaluation began", "begin anew with --force")

    def shard(self, number: int) -> Shard:
        """The images of a shard; files are decoded when they are asked for."""
        if self._split is not None:
            index = np.array(self._plan.span(number), np.int64) % self._plan.images
            part = self._split.take(index)
            return Shard(part.images, part.labels, ())
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._folder / LISTING) as listing:
            rows = listing.read_row_group(number)
        paths = tuple(rows["path"].to_pylist())
        return Shard(ImageFiles(Path("/"), paths, self._plan.size), rows["label"].to_numpy(), paths)
