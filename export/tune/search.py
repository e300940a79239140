"""Search for the smallest share of the dense time within the loss: without training, then with distillation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from export.tune.candidates import Candidate, CandidateFactory, OnStep
from export.tune.loss_test import Judge
from export.tune.next_cut import MOST, next_share, next_taught
from export.tune.request import Lessons, TuneRequest, int8_forms
from runtime.bench.plan import Target
from runtime.runners.runtime_precision import RuntimePrecision
from vitnla.allocation.options import UnattainableTarget

_RESERVE = 2.0
"""Time reserved for the final comparison and the export of the answer, as a multiple of the time that one share takes."""
_LATER = 0.6
"""Time of a later share over that of the first, which also calibrates, times operators and runs the dense model."""


@dataclass
class Search:
    """The state of a search.

    Args:
        request: see `TuneRequest`.
        factory: makes the bundles.
        prices: runtime and precision whose operator times `auto` uses.
        judge: of the losses.
        started: `time.monotonic()` when the tuning began.
        say: called with a line of text before each step.
    """

    request: TuneRequest
    factory: CandidateFactory
    prices: RuntimePrecision
    judge: Judge
    started: float
    say: OnStep
    tried: dict[float, bool] = field(default_factory=dict)
    """Share of the dense time -> whether at least one of its bundles was within the budget."""
    taught: dict[float, bool] = field(default_factory=dict)
    """The same for the distilled shares."""
    floor: float = 0.0
    """The smallest share that the model's widths and ranks allow; 0 until a smaller one was tried."""
    made: list[Candidate] = field(default_factory=list)
    """Every decomposed candidate whose loss was measured."""

    def run(self) -> None:
        """Find the smallest share within the budget; with lessons, also the smallest distilled share."""
        self._go(self.tried, lambda: next_share(self.tried), None, _RESERVE)
        if (lessons := self.request.lessons) is not None:
            self._go(self.taught, lambda: next_taught(self.tried, self.taught), lessons, 0.0)

    def _go(
        self, found: dict[float, bool], following: Callable[[], float | None], lessons: Lessons | None, reserve: float
    ) -> None:
        """Score shares one by one while the time budget allows, `reserve` included; the first is always scored."""
        expected, how = 0.0, ", distilled" if lessons else ""
        while (share := following()) is not None:
            share = max(share, self.floor)
            if share in found or share > MOST:
                return  # what can be had was tried, or is hardly less than the dense model
            begun = time.monotonic()
            if found and begun - self.started + (1 + reserve) * expected > self.request.time_budget_s:
                self.say(f"no time for a share of {share:g}{how}")
                return
            try:
                found[share] = self._within_budget(Candidate(share, None, lessons, self.prices))
            except UnattainableTarget as error:
                if error.least <= share:
                    raise
                self.floor = error.least
                self.say(f"a share of {share:g} cannot be had: this model allows {error.least:g} and more")
                continue
            seconds = time.monotonic() - begun
            expected = seconds * _LATER if len(found) == 1 else max(expected, seconds)
            self.say(f"share {share:g}{how}: {'within' if found[share] else 'beyond'} {self.request.max_drop:g} points")

    def _within_budget(self, candidate: Candidate) -> bool:
        """Return whether the fp32 bundle and at least one int8 form of it are within the budget; int8 is skipped if fp32 fails."""

        def fits(one: Candidate, target: Target) -> bool:
            bundle = self.factory.make(one)
            self.made.append(one)
            return self.judge.fits(bundle, target, one.label)

        if not fits(candidate, self.request.reference):
            return False
        # One for every runtime, since which is the fastest is only known once they are measured.
        lowered = [
            any(fits(replace(candidate, lowering=form), target) for form in int8_forms(runtime))
            for runtime, target in self.request.lowering_targets.items()
        ]
        return any(lowered)
