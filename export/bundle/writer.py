"""Writer of every bundle, whether from a model, an ONNX file or another tool's graph."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from export.bundle.loss_attribution import LossAttribution
from export.graph.inspect import low_rank_pairs, operator_counts
from runtime.bundle.schema import MANIFEST, MODEL, PREDICTIONS, REFERENCE, Graph, Manifest
from vitnla.common.files import atomic_folder, sha256_file, write_atomically


class BundleWriter:
    """Writes the files that every bundle has into a scratch folder, and the manifest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        """The manifest's time stamp, UTC."""

    @property
    def model_path(self) -> Path:
        """Path of the ONNX file."""
        return self.folder / MODEL

    @property
    def reference_path(self) -> Path:
        """Path of the reference inputs and logits."""
        return self.folder / REFERENCE

    def write_reference(self, images: NDArray[Any], logits: NDArray[np.float32]) -> None:
        """Store reference inputs, as the graph takes them, and the reference logits [N, classes] for them."""
        np.savez(self.reference_path, images=images, logits=logits)

    def finish(self, manifest: Manifest, attribution: LossAttribution, split: str) -> None:
        """Store the predicted classes, hash every file, and write the manifest.

        Args:
            manifest: of the bundle; its `accuracy`, `losses` and `files` are filled in here.
            attribution: predictions of the dense source and of the deployed model, step by step.
            split: name of the split of those predictions.
        """
        np.savez_compressed(
            self.folder / PREDICTIONS, dense=attribution.dense.classes, exported=attribution.last.classes
        )  # fmt: skip
        complete = {"accuracy": attribution.accuracy(split), "losses": attribution.stages, "files": file_hashes(self.folder)}
        write_atomically(self.folder / MANIFEST, manifest.model_copy(update=complete).to_json())


@contextlib.contextmanager
def new_bundle(destination: Path, *, replace: bool) -> Iterator[BundleWriter]:
    """Yield a writer whose folder becomes `destination` when the block ends without an error; otherwise nothing is left.

    Raises:
        InputError: `destination` exists and `replace` is false, or it cannot be written.
    """
    with atomic_folder(destination, replace=replace) as folder:
        yield BundleWriter(folder)


def describe_graph(model: onnx.ModelProto, opset: int, simplifier: str) -> Graph:
    """Return the manifest's record of a graph: operator counts and low-rank pairs."""
    return Graph(opset=opset, operators=operator_counts(model), low_rank_pairs=len(low_rank_pairs(model)), simplifier=simplifier)


def tool_versions(names: Sequence[str]) -> dict[str, str]:
    """Return the versions of vitdeploy, Python and the packages named."""
    return {name: version(name) for name in ("vitdeploy", *names)} | {"python": platform.python_version()}


def file_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by its path inside it."""
    return {file.relative_to(folder).as_posix(): sha256_file(file) for file in sorted(folder.rglob("*")) if file.is_file()}
