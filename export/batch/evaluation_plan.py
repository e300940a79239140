"""Plan of an evaluation, stored in its folder before any work, so that all workers and later runs share it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from runtime.bundle.engines import EnginePrecision
from runtime.bundle.schema import MANIFEST, open_bundle
from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file, write_atomically
from vitnla.common.schema import Record

PLAN, LISTING, PARTS, SUMMARY, UNREADABLE = "plan.json", "listing.parquet", "parts", "summary.json", "unreadable.jsonl"


class Plan(Record):
    """Plan of one evaluation, independent of the engine. Image `index` is the split's image `index % images`."""

    schema_version: Literal[1] = 1
    bundle: str
    """Path of the bundle, valid for every worker."""
    manifest_sha256: str
    data: str
    split: str
    data_sha256: str
    """Hash of file names and labels, or of pixels and labels if the images are not files."""
    files: bool
    """Whether the images are files; `listing.parquet` then holds their paths, one row group per shard."""
    size: int | None
    """Side to decode files to, if the SPEC has one."""
    images: int
    repeat: int
    shard: int
    """Number of images per shard, that is per task and per part file."""
    batch: int
    runtime: str
    provider: str
    precision: EnginePrecision | None
    columns: tuple[int, ...] | None = None
    """The bundle's class of each class of the data, among which predictions are scored; null if they are the same."""

    @property
    def total(self) -> int:
        """Number of images to run, including repetitions."""
        return self.images * self.repeat

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.total // self.shard)

    def span(self, number: int) -> range:
        """Return the image indices of shard `number`."""
        return range(number * self.shard, min(self.total, (number + 1) * self.shard))


def manifest_hash(bundle: Path) -> str:
    """Return the hash of a bundle's manifest, which contains the hashes of its other files."""
    return sha256_file(bundle / MANIFEST)


def part_path(folder: Path, number: int) -> Path:
    """Return the path of a shard's part."""
    return folder / PARTS / f"part-{number:06d}.parquet"


def sweep(folder: Path) -> None:
    """Remove temporary files of workers that were killed during a write. To be called only when no worker writes."""
    for left in (folder / PARTS).glob(".part-*"):
        left.unlink(missing_ok=True)


def listing_hash(names: tuple[str, ...], labels: bytes) -> str:
    """Return the hash of file names and labels; contents are not read, since there may be a billion files."""
    digest = hashlib.sha256(labels)
    for name in names:
        digest.update(name.encode() + b"\0")
    return digest.hexdigest()


def settle(folder: Path, plan: Plan, *, replace: bool) -> bool:
    """Return whether `folder` holds the same evaluation, to be resumed.

    Raises:
        InputError: the folder holds another evaluation, or something else, and `replace` is false.
    """
    path = folder / PLAN
    if replace or not folder.exists() or not (folder.is_dir() and any(folder.iterdir())):
        return False
    if not path.is_file():
        raise InputError(f"{folder} already exists and is no evaluation", "choose another folder with -o, or pass --force")
    kept = Plan.read(path)
    if kept == plan:
        return True
    # The hash of the data goes last: where it differs because fewer images are asked for, the number says more.
    names = sorted(Plan.model_fields, key=lambda name: name == "data_sha256")
    name = next(name for name in names if getattr(kept, name) != getattr(plan, name))
    found = f"{folder} holds an evaluation with {name} {getattr(kept, name)}, expected {getattr(plan, name)}"
    raise InputError(found, "choose another folder with -o, or pass --force to begin anew")


def write_plan(folder: Path, plan: Plan) -> None:
    """Store the plan in the folder."""
    write_atomically(folder / PLAN, plan.to_json())


def open_planned(plan: Plan) -> Path:
    """Return the bundle's folder, checked to be unchanged since the evaluation began.

    Raises:
        InputError: the bundle is missing, damaged or another one.
    """
    folder = open_bundle(Path(plan.bundle)).folder
    if manifest_hash(folder) != plan.manifest_sha256:
        raise InputError(f"{folder} is another bundle than when this evaluation began", "begin anew with --force")
    return folder
