"""What `vitdeploy tune` is asked for."""

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
"""Validation images, at most, on which every candidate's manifest and every cell of the report are scored."""


@dataclass(frozen=True)
class Lessons:
    """How long the dense model teaches a decomposed one: passes over so many training images (`None` is all)."""

    epochs: int
    images: int | None = None

    @property
    def name(self) -> str:
        """`2x9000`, `1xall`."""
        return f"{self.epochs}x{self.images or 'all'}"


@dataclass(frozen=True)
class TuneRequest:
    """The question: which bundle is the fastest on this machine within a loss.

    Args:
        model: SPEC of the dense model, `data` that of its images.
        max_drop: points of top-1 that may be lost against the dense model.
        confidence: how sure it must be, on the validation images, that no more are.
        targets: runtimes to choose from.
        batch: images at a time.
        threads: of every runtime.
        fewer_threads: other numbers of them, one of which is taken where it is faster for the dense model.
        images: validation images, at most, see `judge.judging_splits`.
        test_images: how many of the test split, which is looked at once, for the answer; `None` is all.
        calibration_images: how many of the calibration split; `None` is all.
        time_budget_s: seconds after which no further share is tried.
        seconds: measured time of each cell of the final comparison.
        folder: everything is kept here; a tuning that was interrupted goes on where it stopped.
        command: the command line, for the manifests.
        prices: what `auto` counts an operator's time by; `None` is by the target on which the dense model is the fastest.
        lessons: for shares that lose too much untrained; `None` leaves every model as it was decomposed.
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
        """What the answer is the answer to."""
        points = f"{self.max_drop:g} point{'' if self.max_drop == 1 else 's'}"
        return f"the fastest within {points} of top-1, with a confidence of {self.confidence:g}"

    @property
    def reference(self) -> Target:
        """Where the dense fp32 model gives the answers that others are held against: the first that computes in fp32."""
        return next(target for target in self.targets if target.precision is None)

    @property
    def lowering_targets(self) -> dict[str, Target]:
        """The runtimes that int8 graphs are made for, and the first target of each."""
        first: dict[str, Target] = {}
        for target in self.targets:
            first.setdefault(target.runtime, target)
        return first

    @property
    def lowerings(self) -> tuple[Lowering, ...]:
        """Every form of int8 graph for those runtimes."""
        return tuple(form for runtime in self.lowering_targets for form in int8_forms(runtime))

    @property
    def taught_images(self) -> int | None:
        """How many of the first training images teach; `None` is all of them."""
        return 0 if self.lessons is None else self.lessons.images

    @property
    def settings(self) -> TuneSettings:
        """What must be the same for a tuning to go on in its folder."""
        return TuneSettings(
            model=self.model, data=self.data, batch=self.batch, threads=self.threads, calibration_images=self.calibration_images,
            class_map=None if self.class_map is None else str(self.class_map),
        )  # fmt: skip

    def check(self) -> None:
        """Refuse what cannot be tuned.

        Raises:
            InputError: a number is out of range, or a runtime is none of those that can be tuned for.
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
    """The forms of an int8 graph for a runtime, the fastest first; another is tried where that loses too much."""
    return lowerings(RuntimePrecision(runtime, "int8"))


def tunable_runtimes() -> tuple[str, ...]:
    """Names of the runtimes that `tune` may choose, whether they can run here or not."""
    return tuple(name for name, traits in known_traits().items() if traits.tunable)


def default_targets() -> tuple[Target, ...]:
    """Every runtime that can be tuned for and runs here, and its lower precisions where the processor has instructions for them."""
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
    """What the bundles of a tuning folder were made with."""

    model: str
    data: str
    batch: int
    threads: int
    calibration_images: int | None
    class_map: str | None = None
