"""Writing of the model repository, with the KServe manifest and the README beside it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.serve import config as configs
from export.serve.batches import Batches, batches, within
from export.serve.kserve import inference_service
from export.serve.preprocess import preprocess_graph, preprocess_specs
from runtime.bundle.engines import EngineRecord
from runtime.bundle.schema import MODEL, Bundle
from runtime.results.schema import read_cells
from vitnla.common.errors import InputError
from vitnla.common.files import atomic_folder, check_free
from vitnla.common.schema import Record

REPOSITORY, MANIFEST, NOTES = "model_repository", "inferenceservice.yaml", "README.md"


@dataclass(frozen=True)
class TritonRequest:
    """Request of `vitdeploy package`."""

    bundle: Bundle
    results: Path | None
    instances: int
    device: str


class Packaged(Record):
    """Result of packaging: the models of the repository, the one that clients call, and notes."""

    models: tuple[str, ...]
    entry: str
    preferred_batches: tuple[int, ...]
    measured: bool
    notes: tuple[str, ...]


def write_repository(request: TritonRequest, destination: Path, *, replace: bool) -> Packaged:
    """Write the repository, atomically: in a scratch folder that is renamed to `destination`.

    Raises:
        InputError: the folder exists, the results file is damaged, or the device is unknown.
        MissingDependencyError: Triton's schema is not installed.
    """
    check_free(destination, replace=replace)
    configs.schema()
    bundle, kind = request.bundle, configs.instance_kind(request.device)
    cells = read_cells(request.results) if request.results else []
    chosen = batches(cells, bundle.name, ("ort",))
    if request.results and not chosen.measured:
        raise InputError(
            f"{request.results} has no cell of bundle '{bundle.name}' on ort",
            f"measure it: vitdeploy bench {bundle.folder} -b 1,8,16",
        )
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", bundle.name)
    with atomic_folder(destination, replace=replace) as folder:
        repository = folder / REPOSITORY
        model = configs.model_config(name, "onnxruntime", bundle, chosen, request.instances, kind)
        place = _model(repository, model, bundle)
        for file in bundle.folder.glob(f"{MODEL}*"):
            shutil.copyfile(file, place / "1" / file.name)
        models, notes = [name], []
        for record in _unique(bundle):
            models.append(_engine(repository, name, bundle, record, batches(cells, bundle.name, ("trt",)), request.instances))
        entry = name
        if bundle.manifest.embedded is None and bundle.fixed_batch is None:
            entry = f"{name}-pixels"
            models += _ensemble(repository, name, entry, bundle, model, chosen)
        notes += _notes(bundle, chosen, entry, models)
        made = Packaged(
            models=tuple(models), entry=entry, preferred_batches=chosen.preferred, measured=chosen.measured, notes=tuple(notes)
        )
        (folder / MANIFEST).write_text(
            inference_service(name, any(record.runtime == "trt" for record in bundle.engine_records()))
        )
        (folder / NOTES).write_text(_readme(bundle, made))
    return made


def _model(repository: Path, config: Any, bundle: Bundle) -> Path:
    """Write a model's folder with configuration, labels and warm-up data; return it, ready for the model file in `1/`."""
    place = repository / str(config.name)
    (place / "1").mkdir(parents=True)
    (place / "config.pbtxt").write_text(configs.as_text(config))
    if bundle.manifest.labels:
        (place / configs.LABELS).write_text("".join(f"{label}\n" for label in bundle.manifest.labels))
    for warm in config.model_warmup:
        for sample in warm.inputs.values():
            if sample.input_data_file:
                (place / "warmup").mkdir(exist_ok=True)
                # Triton repeats one item for the whole batch, so one image is the file.
                (place / "warmup" / sample.input_data_file).write_bytes(np.ascontiguousarray(bundle.reference()[0][:1]).tobytes())
    return place


def _unique(bundle: Bundle) -> list[EngineRecord]:
    """Return one TensorRT engine per precision and capability; Triton has no backend for TensorRT for RTX."""
    return [record for record in bundle.engine_records() if record.runtime == "trt"]


def _engine(repository: Path, name: str, bundle: Bundle, record: EngineRecord, measured: Batches, instances: int) -> str:
    """Write a model of the TensorRT backend and return its name, which contains the GPU that it was compiled for."""
    own = f"{name}-trt-{record.capability.lower()}-{record.precision}"
    chosen = (
        within(measured, record.profile.max) if measured.measured else Batches((record.profile.opt,), record.profile.max, False)
    )
    config = configs.model_config(own, "tensorrt", bundle, chosen, instances, "KIND_GPU")
    place = _model(repository, config, bundle)
    shutil.copyfile(bundle.folder / record.file, place / "1" / "model.plan")
    return own


def _ensemble(repository: Path, name: str, entry: str, bundle: Bundle, model: Any, chosen: Batches) -> list[str]:
    """Write the preprocessing graph, and the ensemble of it and the model; return their names."""
    before = configs.preprocess_config(f"{name}-preprocess", preprocess_specs(bundle), chosen)
    for config in (before, configs.ensemble_config(entry, before, model)):
        (repository / str(config.name) / "1").mkdir(parents=True)
        (repository / str(config.name) / "config.pbtxt").write_text(configs.as_text(config))
    onnx.save(preprocess_graph(bundle), repository / str(before.name) / "1" / MODEL)
    if bundle.manifest.labels:
        shutil.copyfile(repository / name / configs.LABELS, repository / entry / configs.LABELS)
    return [str(before.name), entry]


def _notes(bundle: Bundle, chosen: Batches, entry: str, models: list[str]) -> list[str]:
    sizes = ", ".join(map(str, chosen.preferred))
    origin = "found best by bench" if chosen.measured else "usual ones, not measured; give --results"
    notes = [f"batch sizes preferred: {sizes} ({origin})"]
    if bundle.fixed_batch is not None:
        notes = [f"the graph runs at batch {bundle.fixed_batch} only, so Triton forms no batches, and clients preprocess"]
    elif bundle.manifest.embedded is not None:
        notes.append(
            f"the graph preprocesses: clients send uint8 pixels {json.dumps(bundle.manifest.input.shape[1:])} to {entry}"
        )
    else:
        notes.append(f"clients send uint8 pixels to the ensemble {entry}, which preprocesses in a graph of its own")
    held = {record.runtime for record in bundle.engine_records()}
    if "trt" not in held:
        other = " (those of TensorRT for RTX have no backend in Triton)" if "trt-rtx" in held else ""
        notes.append(f"no model for the TensorRT backend: the bundle holds no engine of TensorRT{other}")
    if not bundle.manifest.labels:
        notes.append("the bundle has no labels, so Triton answers with class numbers")
    return notes


def _readme(bundle: Bundle, made: Packaged) -> str:
    """Return the README of a packaged repository."""
    return "\n".join(
        [
            f"# {bundle.name} for Triton Inference Server",
            "",
            "    tritonserver --model-repository=model_repository",
            "    kubectl apply -f inferenceservice.yaml      # once its storageUri is filled in",
            "",
            f"Models: {', '.join(made.models)}. Clients call `{made.entry}`.",
            "",
            *(f"- {note}" for note in made.notes),
            "",
        ]
    )
