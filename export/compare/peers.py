"""Peers of a comparison: those that can be made here as bundles, and the absent ones with the reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from export.bundle.plan import ExportOptions
from export.compare.adopt import Adoption, adopt_graph
from export.pipeline import ExportRequest, export_model
from runtime.bench.plan import BenchPlan, Target
from runtime.bundle.schema import MANIFEST, Bundle, open_bundle
from runtime.results.schema import Cell
from vitnla.common.errors import VitDeployError
from vitnla.data.dataset import Dataset
from vitnla.data.load import load_data
from vitnla.methods.none.config import NONE
from vitnla.sources.load import load_model
from vitnla.sources.source_model import SourceModel

TORCH = ("torch", "torch-compile")
TARGETS = tuple(Target.parse(name) for name in ("ort", *TORCH, "openvino", "openvino:bf16"))
"""ONNX Runtime first: the baseline on other runtimes is compared with the baseline there."""
_OPTIMUM = {"optimum-fp32": "fp32", "optimum-O3": "fp32", "optimum-int8-dynamic": "int8-dynamic"}
_NOT_GIVEN = "no --optimum FILE was given (scripts/optimum_export.sh writes them)"


@dataclass(frozen=True)
class Peer:
    """A dense bundle, and the runtimes that it is measured on."""

    name: str
    precision: str
    lowering: str
    runtimes: tuple[str, ...]


BASELINE = Peer("dense-fp32", "fp32", "ort", ("ort", *TORCH, "openvino"))
PEERS = (
    BASELINE,
    Peer("dense-int8-dynamic", "int8-dynamic", "ort", ("ort",)),
    Peer("dense-int8-ort", "int8", "ort", ("ort",)),
    Peer("dense-int8-openvino", "int8", "openvino", ("openvino",)),
)


@dataclass(frozen=True)
class Absent:
    """A peer that has no bundle, and why."""

    name: str
    precision: str
    runtime: str
    reason: str


@dataclass(frozen=True)
class Asked:
    """A request for the peers of a model.

    Args:
        model: its SPEC, and `data` that of the images.
        work: the folder of the bundles, which are reused.
        optimum: ONNX files that optimum wrote of the same weights, each named after its folder.
        ours: bundles of decomposed models of the same source.
        command: the command line, for the manifests.
        eval_images: how many test images accuracy is measured on; `None` is all.
    """

    model: str
    data: str
    work: Path
    command: str
    optimum: Sequence[Path] = ()
    ours: Sequence[Path] = ()
    eval_images: int | None = None


@dataclass(frozen=True)
class Peers:
    """Bundles to measure, their runtimes by the bundle's name, and absent peers."""

    bundles: tuple[Bundle, ...]
    only: dict[str, tuple[str, ...]]
    absent: tuple[Absent, ...]


def gather(asked: Asked, on_step: Callable[[str], None]) -> Peers:
    """Make every peer that can be made here; the failure of one is recorded in its row, and affects no other.

    Raises:
        VitDeployError: the model or the data cannot be loaded, a bundle of ours cannot be opened, or the baseline cannot be made.
    """
    source, data = load_model(asked.model), load_data(asked.data)
    ours = [open_bundle(folder) for folder in asked.ours]
    bundles: list[Bundle] = []
    absent: list[Absent] = []
    only: dict[str, tuple[str, ...]] = {}

    def attempt(name: str, precision: str, runtimes: tuple[str, ...], make: Callable[[], Bundle]) -> None:
        try:
            bundles.append(make())
        except VitDeployError as error:
            if name == BASELINE.name:
                raise
            absent.extend(Absent(name, precision, runtime, _reason(error)) for runtime in runtimes)
        else:
            only[name] = runtimes

    for peer in PEERS:
        attempt(peer.name, peer.precision, peer.runtimes, partial(_dense, peer, asked, source, data, on_step))
    for file in asked.optimum:
        name = f"optimum-{file.resolve().parent.name}"
        wanted = Adoption(file, name, asked.work / name, asked.command, asked.eval_images)
        attempt(name, _OPTIMUM.get(name, "fp32"), ("ort",), partial(adopt_graph, wanted, source, data, on_step))
    if not asked.optimum:
        reason = _NOT_GIVEN if asked.model.startswith("hf:") else f"it exports models of transformers, not {asked.model}"
        absent += [Absent(name, precision, "ort", reason) for name, precision in _OPTIMUM.items()]
    for bundle in ours:
        fixed = bundle.manifest.precision != "fp32"
        only[bundle.name] = (bundle.manifest.runtime,) if fixed else ("ort", "openvino")
    return Peers((*bundles, *ours), only, tuple(absent))


def absent_cells(absent: Sequence[Absent], measured: Cell, plan: BenchPlan) -> list[Cell]:
    """Return a cell with the reason for each absent peer at every batch size, in the run of the cell `measured`."""
    return [
        Cell(
            run=measured.run, created=measured.created, command=measured.command, machine=measured.machine, bundle=one.name,
            bundle_path="", method=NONE, runtime=one.runtime, precision=one.precision, batch=batch, scenario=plan.scenario,
            error=one.reason,
        )
        for batch in plan.batches
        for one in absent
    ]  # fmt: skip


def _dense(peer: Peer, asked: Asked, source: SourceModel, data: Dataset, on_step: Callable[[str], None]) -> Bundle:
    folder = asked.work / peer.name
    if (folder / MANIFEST).is_file():
        known = open_bundle(folder)
        if (known.manifest.source_sha256, known.manifest.data) == (source.sha256, data.name):
            return known
    options = ExportOptions(
        name=peer.name, precision=peer.precision, runtime=peer.lowering, eval_images=asked.eval_images, force=True
    )
    request = ExportRequest(asked.model, asked.data, NONE, {}, folder, options, asked.command)
    return export_model(request, lambda text: on_step(f"{peer.name}: {text}"))


def _reason(error: VitDeployError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message
