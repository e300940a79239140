"""The schema of a bundle, a self-describing folder. `export` writes it, everything else reads it through `open_bundle`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from runtime.bundle.engines import EngineRecord, read_records
from vitnla.common.errors import InputError
from vitnla.common.files import sha256_file
from vitnla.common.measures import Accuracy, Cost, Distillation, LayerRow, LossStage
from vitnla.common.schema import Record

SCHEMA_VERSION = 1
MANIFEST, MODEL, CHECKPOINT = "manifest.json", "model.onnx", "checkpoint"
REFERENCE, PREDICTIONS = "reference.npz", "predictions.npz"
Precision = Literal["fp32", "fp16", "bf16", "int8", "int8-dynamic", "fp8"]

Reference = Literal["torch", "original-onnx", "rewritten-onnx"]
"""`torch`: the fp32 torch model. Of a graph that was given as ONNX, ONNX Runtime without its optimisations, on the CPU:
`original-onnx`, on that graph as it was given, where the method changed nothing; `rewritten-onnx`, on the decomposed graph as it
was in memory, where logits have to differ from the original's. There `accuracy.agreement` tells how far the two are apart."""


class Parity(Record):
    """Largest |onnx - reference| / max |reference| over the logits of the batches tried, against the tolerance.

    The reference is what `Manifest.reference` names.
    """

    max_rel: float
    tolerance: float
    batches: tuple[int, ...]

    @property
    def met(self) -> bool:
        """True if the error is within the tolerance."""
        return self.max_rel <= self.tolerance


class OnlineForm(Record):
    """The form in the graph of a decomposition that torch computes in every forward pass, for which ONNX has no operator."""

    kinds: tuple[str, ...]
    """`cholesky`, `pca`, `svd`, `tensor`."""
    form: Literal["omitted", "matmul"]
    """`omitted`: no output depends on it, so leaving it out is exact. `matmul`: a fixed number of matrix products."""
    parity: Parity
    """The form against the exact one, both in torch; `Manifest.parity` is the graph against the exact one."""


class Quantization(Record):
    """The quantisation of the linears of the graph, its target runtime, and its effect on the calibration images."""

    runtime: str
    """The runtime that the scheme is made for; others run it, possibly slowly."""
    tool: str
    scheme: str
    images: int
    """Number of calibration images that set the ranges; 0 for dynamic ranges."""
    quantized: int
    """Linears that were quantised."""
    kept_in_float: tuple[str, ...] = ()
    """Nodes left alone because measurement found them sensitive."""
    activations: str | None = None
    """Kind of the int8 activations, where the quantiser has a choice; null in older bundles."""
    divergence: float | None = None
    """Mean KL divergence of the logits from the fp32 graph's, in nats, on the calibration images."""


class TensorSpec(Record):
    """Name, element type and shape of a graph input or output; the first axis is the batch, a number where that is fixed."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Embedded(Record):
    """Preprocessing inside the graph, from uint8 pixels [batch, H, W, C] of the size in `Manifest.input`."""

    output: Literal["logits", "probabilities"]
    grey_levels: float
    """Largest difference, over the reference images, of its pixels from those that `Manifest.preprocessing` makes."""


class Graph(Record):
    """Operator counts of the exported graph, and the number of low-rank pairs after simplification."""

    opset: int
    operators: dict[str, int]
    low_rank_pairs: int
    simplifier: str


class Manifest(Record):
    """The description of a bundle: its source, method, costs, accuracy, parity, inputs and outputs, and the hashes of its files."""

    schema_version: Literal[1] = 1
    name: str
    created: str
    command: str
    source: str
    source_sha256: str
    notes: tuple[str, ...] = ()
    """Notes on choices and assumptions about the source where its files are silent."""
    data: str
    method: str
    method_config: dict[str, Any]
    model: dict[str, Any] | None
    """The `ViTConfig`, as JSON; null for a graph that was given as ONNX, of which there is no model in torch."""
    layers: tuple[LayerRow, ...]
    macs: Cost
    parameters: Cost
    precision: Precision
    runtime: str = "ort"
    """The runtime that the precision is made for, and on which `accuracy` was measured where it runs without a GPU."""
    quantization: Quantization | None = None
    input: TensorSpec
    output: TensorSpec
    answers: Literal["logits", "probabilities"] = "logits"
    """Kind of the output; in manifests written before it was recorded, `embedded` determines it."""
    preprocessing: dict[str, Any]
    """A `PreprocessingConfig` as JSON: from images to the input of the model; `embedded` is set where the graph does this."""
    embedded: Embedded | None = None
    labels: tuple[str, ...]
    accuracy: Accuracy
    losses: tuple[LossStage, ...] = ()
    """Accuracy lost by each step from the dense source to this model: decomposition, then precision, then runtime."""
    parity: Parity
    """Parity of the graph before its precision was lowered; `precision_error` is that of the file that was written."""
    precision_error: float | None = None
    """Largest |logit - fp32 reference logit| / max |fp32 reference logit| of the lowered graph, over the reference images."""
    reference: Reference = "torch"
    """The source of the logits in `reference.npz`, with which `parity` compares."""
    online: OnlineForm | None = None
    distillation: Distillation | None = None
    graph: Graph
    tools: dict[str, str]
    files: dict[str, str]
    """SHA-256 of every other file of the bundle, by its path inside it."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files were found and whose hashes were checked."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """The name in the manifest, which tables show."""
        return self.manifest.name

    @property
    def model_path(self) -> Path:
        """Path of the ONNX file."""
        return self.folder / MODEL

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the graph runs at; `None` for any."""
        batch = self.manifest.input.shape[0]
        return batch if isinstance(batch, int) else None

    @property
    def gives_probabilities(self) -> bool:
        """True if the graph's output is probabilities, not logits."""
        embedded = self.manifest.embedded
        return self.manifest.answers == "probabilities" or (embedded is not None and embedded.output == "probabilities")

    def model_bytes(self) -> int:
        """Return the size of the ONNX model on disk in bytes, external data included."""
        return sum(file.stat().st_size for file in self.folder.glob(f"{MODEL}*"))

    def engine_records(self) -> tuple[EngineRecord, ...]:
        """Return the records of the bundle's engines."""
        return read_records(self.folder)

    def reference(self) -> tuple[NDArray[np.float32 | np.uint8], NDArray[np.float32]]:
        """Return eight reference inputs, shaped as in `manifest.input`, and the fp32 answers, shaped as in `manifest.output`, of
        the reference that `manifest.reference` names."""
        with np.load(self.folder / REFERENCE, allow_pickle=False) as arrays:
            return arrays["images"], arrays["logits"]

    def dense_predictions(self) -> NDArray[np.int64]:
        """Return the classes [N] that the dense fp32 source predicted for the images of `manifest.accuracy`.

        They are numbered as `manifest.accuracy.columns` says.
        """
        with np.load(self.folder / PREDICTIONS, allow_pickle=False) as arrays:
            classes: NDArray[np.int64] = arrays["dense"]
        return classes


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle and check that it is whole.

    Raises:
        InputError: the folder is no bundle, its schema is unknown, or a file is missing or differs from its hash; names the file.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} is not a bundle: it has no {MANIFEST}", "make one with: vitdeploy export -o DIR")
    _check_schema(path)
    manifest = Manifest.read(path)
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{folder}: file {name} is missing", "export the bundle again")
        if sha256_file(file) != expected:
            hint = "the file was changed or damaged; export the bundle again"
            raise InputError(f"{folder}: file {name} does not match its hash in {MANIFEST}", hint)
    return Bundle(folder, manifest)


def find_bundles(folder: Path) -> tuple[Bundle, ...]:
    """Return every bundle directly inside a folder, by name; none where the folder does not exist."""
    return tuple(open_bundle(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}")))


def _check_schema(path: Path) -> None:
    try:
        version = json.loads(path.read_bytes()).get("schema_version")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a readable manifest: {error}", "export the bundle again") from error
    if version != SCHEMA_VERSION:
        hint = "export the bundle again with this version"
        raise InputError(f"{path}: expected schema version {SCHEMA_VERSION}, got {version}", hint)
