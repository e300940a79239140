"""The bundles of a tuning, each made once: share of the dense time, precision, runtime, distillation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from export.bundle.from_model import write_model_bundle
from export.bundle.plan import ExportOptions, plan_export
from export.latency.measure import cached_latency
from export.precision.request import Lowering
from export.precision.runtimes.base import ASYMMETRIC
from export.tune.request import PICTURED, Lessons, TuneRequest
from runtime.bundle.schema import MANIFEST, Bundle, open_bundle
from runtime.runners.runtime_precision import ORT_FP32, RuntimePrecision
from vitnla.allocation.latency_model import LatencyModel
from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset
from vitnla.decomposition import DecomposedModel, decompose
from vitnla.methods.auto.config import AutoConfig
from vitnla.methods.none.config import NONE, NoneConfig
from vitnla.model.config import ViTConfig
from vitnla.sources.load import load_model
from vitnla.sources.source_model import SourceModel
from vitnla.training.config import DistillConfig
from vitnla.training.distill import teach
from vitnla.training.loop import Progress

OnStep = Callable[[str], None]


@dataclass(frozen=True)
class Candidate:
    """One bundle of a tuning.

    Args:
        share: of the dense time, the target of `auto`; `None` is the dense model.
        lowering: to int8; `None` is fp32.
        lessons: of the distillation from the dense model, before quantisation; `None` is none.
        prices: runtime and precision whose operator times `auto` uses.
    """

    share: float | None
    lowering: Lowering | None = None
    lessons: Lessons | None = None
    prices: RuntimePrecision = ORT_FP32

    @property
    def label(self) -> str:
        """Display name: `dense · fp32`, `auto 0.6 · int8`, `auto 0.4 · int8 · distilled`."""
        base = "dense" if self.share is None else f"auto {self.share:g}"
        precision = "fp32" if self.lowering is None else self.lowering.precision
        return " · ".join([base, precision, *(["distilled"] if self.lessons else [])])

    @property
    def name(self) -> str:
        """Folder name: `dense-fp32`, `auto-0.48-int8-openvino`, `auto-0.4-by-openvino-int8-distilled-2x9000-fp32`."""
        base = "dense" if self.share is None else f"auto-{self.share:g}"
        if self.prices != ORT_FP32:
            base += f"-by-{self.prices.label.replace(':', '-')}"
        if self.lessons is not None:
            base += f"-distilled-{self.lessons.name}"
        if self.lowering is None:
            return f"{base}-fp32"
        activations = [] if self.lowering.activations == ASYMMETRIC else [self.lowering.activations]
        return "-".join([base, self.lowering.precision, self.lowering.runtime, *activations])

    @property
    def runtimes(self) -> frozenset[str] | None:
        """Names of the runtimes that it is measured on; `None` is all."""
        return None if self.lowering is None else frozenset({self.lowering.runtime})


def labels(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Return candidate name -> label, every label unique.

    Equal labels get the runtime added, then the kind of activations if they are still equal.
    """
    found = {one: one.label for one in candidates}
    details: tuple[Callable[[Lowering], str], ...] = (lambda one: one.runtime, lambda one: one.activations)
    for detail in details:
        counts = Counter(found.values())
        found = {
            one: text if counts[text] == 1 or one.lowering is None else f"{text} · {detail(one.lowering)}"
            for one, text in found.items()
        }
    return {one.name: text for one, text in found.items()}


class CandidateFactory:
    """Factory of the bundles of a tuning, each made once, from a model and data that are loaded once.

    Args:
        request: its folder stores the bundles, so that an interrupted tuning resumes with them.
        source: the dense model of the request.
        data: the data of the request.
        on_step: called with a line of text before each step.
    """

    def __init__(self, request: TuneRequest, source: SourceModel, data: Dataset, on_step: OnStep) -> None:
        self._request, self._source, self._data, self._on_step = request, source, data, on_step
        self._made: dict[Candidate, Bundle] = {}
        self.threads = request.threads
        """CPU threads that operators are timed with; set again once the number is chosen."""

    def make(self, candidate: Candidate) -> Bundle:
        """Export a candidate with its accuracy on the validation split, or open it if an earlier run exported it.

        INT8 is made from the fp32 bundle of the same share, so each share is decomposed once.
        """
        if candidate not in self._made:
            folder = self._request.folder / "candidates" / candidate.name
            scored = ("validation", min(self._request.images, PICTURED))
            kept = open_bundle(folder) if (folder / MANIFEST).is_file() else None
            self._made[candidate] = kept or self._export(candidate, candidate.name, folder, scored, again=False)
        return self._made[candidate]

    def hand_over(self, candidate: Candidate, name: str, folder: Path) -> Bundle:
        """Export the answer under its display name, with its accuracy on the test split, which is used for nothing else."""
        return self._export(candidate, name, folder, ("test", self._request.test_images), again=True)

    def _export(self, candidate: Candidate, name: str, folder: Path, split: tuple[str, int | None], *, again: bool) -> Bundle:
        lowering = candidate.lowering or Lowering()
        options = ExportOptions(
            name=name, precision=lowering.precision, runtime=lowering.runtime, int8_activations=lowering.activations,
            eval_split=split[0], eval_images=split[1], force=True,
        )  # fmt: skip

        def on_step(text: str) -> None:
            self._on_step(f"{candidate.label}: {text}")

        plan = plan_export(self._source, self._data, options, folder, lowering)
        return write_model_bundle(self._decomposed(candidate, on_step, again=again), plan, self._request.command, on_step)

    def _decomposed(self, candidate: Candidate, on_step: OnStep, *, again: bool) -> DecomposedModel:
        """Return the candidate's model, from its fp32 bundle where that exists."""
        if candidate.share is None:
            return decompose(self._source, NoneConfig(), self._data, method=NONE, on_step=on_step)
        if candidate.lowering is not None or again:
            return self._stored(self.make(replace(candidate, lowering=None)).folder)
        if candidate.lessons is not None:
            return self._stored(self._taught(candidate, candidate.lessons, on_step))

        def measure(config: ViTConfig) -> LatencyModel:
            return self._time_operators(config, candidate.prices, on_step)

        return decompose(
            self._source, AutoConfig(target_latency=candidate.share), self._data, method="auto",
            calibration_images=self._request.calibration_images, measure_latency=measure, on_step=on_step,
        )  # fmt: skip

    def _stored(self, folder: Path) -> DecomposedModel:
        """Load a model that was decomposed, and possibly distilled, before.

        Raises:
            InputError: the folder holds no such model, or one made from another dense model.
        """
        stored = load_model(str(folder))
        origin = stored.origin
        if origin is None or origin.source_sha256 != self._source.sha256:
            raise InputError(
                f"{folder} was not made from the model '{self._source.spec}' as it is now", "remove it, or tune in another folder"
            )
        return DecomposedModel.of_stored(stored, origin, self._source, self._data)

    def _time_operators(self, config: ViTConfig, prices: RuntimePrecision, on_step: OnStep) -> LatencyModel:
        def progress(done: int, total: int) -> None:
            on_step(f"timing operators on {prices.label}, round {done} of {total}")

        return cached_latency(config, prices, self._request.batch, self.threads, progress)

    def _taught(self, candidate: Candidate, lessons: Lessons, on_step: OnStep) -> Path:
        """Distil a candidate from the dense model, or resume an interrupted run; return the folder of its checkpoint."""
        folder = self._request.folder / "candidates" / f"{candidate.name}-run"
        student = self.make(replace(candidate, lowering=None, lessons=None))

        def on_batch(done: int, total: int, loss: float) -> None:
            on_step(f"distilling, batch {done} of {total}, loss {loss:.3f}")

        progress = Progress(on_step=on_batch, on_note=on_step)
        config = DistillConfig(epochs=lessons.epochs)
        teach(self._source, load_model(str(student.folder)), self._data, config, folder, progress, lessons.images)
        return folder
