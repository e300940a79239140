"""The request of `vitdeploy tune`, its settings and its defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.precision.request import Lowering, lowerings
from runtime.bench.plan import Target
from runtime.machine.facts import machine_facts
from runtime.runners.registry import known_traits, runner
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.common.errors import InputError
from vitnla.common.schema import Record

PICTURED = 2000
"""Largest number of validation images for the accuracy in each candidate's manifest and in each cell of the report."""


@dataclass(frozen=True)
class Lessons:
    """Length of a distillation: `epochs` over the first `images` training images (`None` is all)."""

    epochs: int
    images: int | None = None

    @property
    def name(self) -> str:
        """`2x9000`, `1xall`."""
        return f"{self.epochs}x{self.images or 'all'}"


@dataclass(frozen=True)
class TuneRequest:
    """A request for the fastest bundle on this machine within a loss of top-1.

    Args:
        model: SPEC of the dense model, `data` that of its images.
        max_drop: points of top-1 that may be lost against the dense model.
        confidence: one-sided confidence, on the validation images, that the loss is at most `max_drop`.
        targets: runtimes to choose from.
        batch: images at a time.
        threads: of every runtime.
        fewer_threads: other thread counts to try; one is used if it is faster for the dense model.
        images: validation images, at most, see `loss_test.judging_splits`.
        test_images: how many of the test split, which is used once, for the answer; `None` is all.
        calibration_images: how many of the calibration split; `None` is all.
        time_budget_s: seconds after which no further share is tried.
        seconds: measured time of each cell of the final comparison.
        folder: stores everything; an interrupted tuning resumes from it.
        command: the command line, for the manifests.
        prices: runtime and precision whose operator times `auto` uses; `None` is the one with the fastest dense model.
        lessons: distillation of shares that lose too much untrained; `None` is no distillation.
        class_map: renames classes of the data, see `vitnla.data.class_mapping.read_class_map`.
    """

    model: str
    data: str
    max_drop: float
    confidence: float
    targets: tuple[Target, ...]
    batch: int
    threads: int
    images: int
    test_images: int | None
    calibration_images: int | None
    time_budget_s: float
    seconds: float
    folder: Path
    command: str
    prices: RuntimePrecision | None = None
    lessons: Lessons | None = None
    fewer_threads: tuple[int, ...] = ()
    class_map: Path | None = None

    @property
    def question(self) -> str:
        """The criterion in words, for reports."""
        points = f"{self.max_drop:g} point{'' if self.max_drop == 1 else 's'}"
        return f"the fastest within {points} of top-1, with a confidence of {self.confidence:g}"

    @property
    def reference(self) -> Target:
        """The target of the dense fp32 reference: the first that computes in fp32."""
        return next(target for target in self.targets if target.precision is None)

    @property
    def lowering_targets(self) -> dict[str, Target]:
        """Runtime that int8 graphs are made for -> its first target."""
        first: dict[str, Target] = {}
        for target in self.targets:
            first.setdefault(target.runtime, target)
        return first

    @property
    def lowerings(self) -> tuple[Lowering, ...]:
        """Every form of int8 graph for the runtimes of `lowering_targets`."""
        return tuple(form for runtime in self.lowering_targets for form in int8_forms(runtime))

    @property
    def taught_images(self) -> int | None:
        """Number of training images used for distillation, from the first on; `None` is all."""
        return 0 if self.lessons is None else self.lessons.images

    @property
    def settings(self) -> TuneSettings:
        """The settings that must be equal for a tuning to resume in its folder."""
        return TuneSettings(
            model=self.model, data=self.data, batch=self.batch, threads=self.threads, calibration_images=self.calibration_images,
            class_map=None if self.class_map is None else str(self.class_map),
        )  # fmt: skip

    def check(self) -> None:
        """Check that the request can be tuned.

        Raises:
            InputError: a number is out of range, or a runtime cannot be tuned for.
        """
        if not 0 <= self.max_drop < 100:
            raise InputError(f"expected --max-drop between 0 and 100 points, got {self.max_drop:g}", "such as --max-drop 1.0")
        if not 0.5 <= self.confidence < 1:
            hint = "0.5 takes the loss as it was measured, 0.95 leaves a wide margin"
            raise InputError(f"expected --confidence of at least 0.5 and below 1, got {self.confidence:g}", hint)
        if not self.time_budget_s > 0:
            raise InputError(f"expected a time budget above 0 s, got {self.time_budget_s:g}", "such as --time-budget 20m")
        for target in self.targets:
            if target.runtime not in tunable_runtimes() or target.provider != "cpu":
                able = " and ".join(tunable_runtimes())
                hint = f"tune chooses among {able} so far; export --precision and bench compare the others"
                raise InputError(f"tune does not know runtime '{target.label}'", hint)
        if all(target.precision is not None for target in self.targets):
            found = ", ".join(target.label for target in self.targets)
            raise InputError(f"expected a runtime in fp32 to hold the others against, got {found}", "add --runtime ort")


def int8_forms(runtime: str) -> tuple[Lowering, ...]:
    """Return the forms of an int8 graph for a runtime, the fastest first; the next is tried if one loses too much."""
    return lowerings(RuntimePrecision(runtime, "int8"))


def tunable_runtimes() -> tuple[str, ...]:
    """Return the names of the runtimes that `tune` may choose, available here or not."""
    return tuple(name for name, traits in known_traits().items() if traits.tunable)


def default_targets() -> tuple[Target, ...]:
    """Return every tunable runtime available here, in fp32 and in the lower precisions that the processor has instructions for."""
    flags = set(machine_facts()["cpu_flags"])
    found: list[Target] = []
    for name in tunable_runtimes():
        made = runner(name)
        if not made.availability().ok:
            continue
        found.append(Target(name))
        needed = made.traits.run_precision_flags
        if not needed or flags.intersection(needed):
            found += [Target(name, precision=precision) for precision in made.traits.run_precisions if precision != "fp32"]
    return tuple(found)


class TuneSettings(Record):
    """Settings that the bundles of a tuning folder were made with."""

    model: str
    data: str
    batch: int
    threads: int
    calibration_images: int | None
    class_map: str | None = None
