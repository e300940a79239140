"""The bundles that a tuning makes, each once: how deep, in what precision, for which runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from export.bundle.plan import ExportOptions
from export.latency.target import DEFAULT_TARGET, LatencyTarget
from export.pipeline import ExportRequest, export_model
from export.precision.request import ASYMMETRIC, SYMMETRIC
from export.tune.request import PICTURED, Lessons, TuneRequest
from runtime.bundle.schema import MANIFEST, Bundle, open_bundle
from vitnla.data.load import load_data
from vitnla.sources.load import load_model
from vitnla.training.config import DistillConfig
from vitnla.training.distill import teach
from vitnla.training.loop import Progress

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """One bundle: `share` of the dense time kept by `auto` (None is the dense model), int8 in a form of `LOWERINGS` (None is fp32).

    Time is counted by `prices`. With `lessons`, the dense model has taught it before it was quantised.
    """

    share: float | None
    lowering: str | None
    lessons: Lessons | None = None
    prices: LatencyTarget = DEFAULT_TARGET

    @property
    def name(self) -> str:
        """Of the bundle and its folder: `dense-fp32`, `auto-0.48-int8-openvino`, `auto-0.4-by-openvino-int8-distilled-2x9000-fp32`."""
        base = "dense" if self.share is None else f"auto-{self.share:g}"
        if self.prices != DEFAULT_TARGET:
            base += f"-by-{self.prices.label.replace(':', '-')}"
        if self.lessons is not None:
            base += f"-distilled-{self.lessons.name}"
        return f"{base}-fp32" if self.lowering is None else f"{base}-int8-{self.lowering}"

    @property
    def runtimes(self) -> frozenset[str] | None:
        """Where it is measured; None is everywhere."""
        return None if self.lowering_runtime is None else frozenset({self.lowering_runtime})

    @property
    def lowering_runtime(self) -> str | None:
        """What int8 is for."""
        return None if self.lowering is None else self.lowering.partition("-")[0]

    @property
    def activations(self) -> str:
        """Of int8, see `ExportOptions`."""
        return SYMMETRIC if self.lowering is not None and self.lowering.endswith(SYMMETRIC) else ASYMMETRIC


def make(candidate: Candidate, request: TuneRequest, on_step: OnStep) -> Bundle:
    """Export a candidate with its accuracy on the validation split, or open it where an earlier run has made it.

    INT8 is made from the fp32 bundle of the same share, so each share is decomposed once.
    """
    folder = request.folder / "candidates" / candidate.name
    if (folder / MANIFEST).is_file():
        return open_bundle(folder)
    return _export(candidate, request, folder, ("validation", min(request.images, PICTURED)), on_step)


def hand_over(candidate: Candidate, request: TuneRequest, folder: Path, on_step: OnStep) -> Bundle:
    """The answer's bundle, with its accuracy on the test split, which nothing has looked at before."""
    return _export(candidate, request, folder, ("test", request.test_images), on_step)


def _export(candidate: Candidate, request: TuneRequest, folder: Path, split: tuple[str, int | None], on_step: OnStep) -> Bundle:
    model, method, settings = request.model, "none", {}
    if candidate.lowering is not None or split[0] == "test":
        model = str(make(replace(candidate, lowering=None), request, on_step).folder) if candidate.share is not None else model
    elif candidate.lessons is not None:
        model = str(_taught(candidate, candidate.lessons, request, on_step))
    elif candidate.share is not None:
        method, settings = "auto", {"target_latency": candidate.share}
    options = ExportOptions(
        name=candidate.name, precision="fp32" if candidate.lowering is None else "int8", runtime=candidate.lowering_runtime,
        int8_activations=candidate.activations, eval_split=split[0], eval_images=split[1], force=True,
    )  # fmt: skip
    export = ExportRequest(
        model, request.data, method, settings, folder, options, request.command, request.calibration_images,
        latency_batch=request.batch, latency_threads=request.threads, latency_target=candidate.prices,
        class_map=request.class_map,
    )  # fmt: skip
    return export_model(export, lambda text: on_step(f"{candidate.name}: {text}"))


def _taught(candidate: Candidate, lessons: Lessons, request: TuneRequest, on_step: OnStep) -> Path:
    """The checkpoint of a candidate that the dense model has taught; a run that was interrupted goes on."""
    folder = request.folder / "candidates" / f"{candidate.name}-run"
    student = make(replace(candidate, lowering=None, lessons=None), request, on_step)

    def on_batch(done: int, total: int, loss: float) -> None:
        on_step(f"{candidate.name}: distilling, batch {done} of {total}, loss {loss:.3f}")

    progress = Progress(on_step=on_batch, on_note=lambda text: on_step(f"{candidate.name}: {text}"))
    config = DistillConfig(epochs=lessons.epochs)
    teach(
        load_model(request.model), load_model(str(student.folder)), load_data(request.data, request.class_map), config, folder, progress,
        lessons.images,
    )  # fmt: skip
    return folder
