"""Plan of a bench or a parity check."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Self, get_args

from runtime.bundle.engines import EnginePrecision
from runtime.bundle.schema import Bundle, Precision
from runtime.process.affinity import usable_cpus
from runtime.results.schema import Scenario
from runtime.runners.base import EngineRunner, Hint, RunOptions, Session
from runtime.runners.registry import known_traits, runner, traits
from runtime.runners.runtime_precision import RuntimePrecision
from runtime.runners.traits import Traits
from vitnla.common.errors import InputError, MissingDependencyError, unknown_name

MULTI_STREAM = 8
"""Images per query of that scenario, as in MLPerf Inference."""


def scenario_named(name: str) -> Scenario:
    """Return a scenario by its name.

    Raises:
        InputError: there is none of that name; lists the existing ones.
    """
    scenarios: tuple[Scenario, ...] = get_args(Scenario)
    for scenario in scenarios:
        if scenario == name:
            return scenario
    raise unknown_name("scenario", name, scenarios)


def _traits(runtime: str) -> Traits:
    """Return the traits of a runtime; the defaults where its module cannot be imported, which `unavailable` reports."""
    try:
        return traits(runtime)
    except MissingDependencyError:
        return Traits()


@dataclass(frozen=True)
class Target:
    """A runtime to measure, with its options.

    Args:
        runtime: its name.
        provider: the execution provider of ONNX Runtime.
        precision: of the engine, for the runtimes that run engines; `None` stands for each one in the bundle. For those that run
            the graph, of its floating-point operators; `None` is the bundle's own.
        threads: CPU threads, where they differ from the plan's.
    """

    runtime: str
    provider: str = "cpu"
    precision: EnginePrecision | None = None
    threads: int | None = None

    @classmethod
    def parse(cls, text: str, provider: str = "cpu") -> Self:
        """Read `ort`, `trt`, `trt:fp16`, `openvino:bf16`; with a number of threads of its own, `ort@1`.

        Args:
            text: the name of a runtime; one that runs engines may be followed by a precision.
            provider: for `ort`; others have none.

        Raises:
            InputError: the runtime takes no precision, or there is none of that name, or the threads are no number above 0.
        """
        text, at, count = text.partition("@")
        if at and not (count.isdecimal() and int(count)):
            raise InputError(f"expected a number of threads after '{text}@', got '{count}'", f"such as {text}@1")
        threads = int(count) if at else None
        runtime, colon, precision = text.partition(":")
        if not colon:
            return cls(runtime, provider if _traits(runtime).providers else "cpu", threads=threads)
        known = _traits(runtime).run_precisions
        if not known:
            able = [name for name, found in known_traits().items() if found.run_precisions]
            hint = f"only {', '.join(able)} take one, as in trt:fp16; --provider chooses that of ort"
            raise InputError(f"runtime '{runtime}' takes no precision, got '{text}'", hint)
        for one in known:
            if one == precision:
                return cls(runtime, precision=one, threads=threads)
        raise unknown_name(f"precision of {runtime}", precision, known)

    @property
    def label(self) -> str:
        """Label in tables: `ort`, `ort:cuda`, `trt:fp16`, `ort@1`."""
        detail = self.precision or (self.provider if self.provider != "cpu" else None)
        name = f"{self.runtime}:{detail}" if detail else self.runtime
        return name if self.threads is None else f"{name}@{self.threads}"

    def options(self, threads: int, batch: int, hint: Hint = "latency") -> RunOptions:
        """Return the options of a session; the target's own threads take precedence over `threads`."""
        return RunOptions(self.threads or threads, self.provider, batch, hint, self.precision)

    def on(self, bundle: Bundle) -> tuple[Self, ...]:
        """Return this target on a bundle: one per engine precision, where none is given. Without engines, loading raises."""
        if self.precision is not None or not _traits(self.runtime).runs_engines:
            return (self,)
        made = runner(self.runtime)
        if not isinstance(made, EngineRunner):
            raise TypeError(f"runtime '{self.runtime}' runs engines by its traits, but has no `engine_precisions`")
        return tuple(replace(self, precision=one) for one in made.engine_precisions(bundle)) or (self,)

    def precision_on(self, bundle: Bundle) -> Precision:
        """Return the precision in which it runs a bundle; a graph exported below fp32 keeps its own."""
        own = bundle.manifest.precision
        return own if own != "fp32" and not _traits(self.runtime).runs_engines else self.precision or own

    def open(self, bundle: Bundle, threads: int, batch: int) -> Session:
        """Open a bundle on it.

        Args:
            bundle: an opened bundle.
            threads: CPU threads, where the target has none of its own.
            batch: the batch size that will be run.

        Raises:
            InputError: the runtime is unknown or refuses the graph.
            MissingDependencyError: the runtime cannot run here; says why and how to mend it.
        """
        chosen = runner(self.runtime)
        chosen.availability().require(self.runtime)
        return chosen.load(bundle, self.options(threads, batch))

    def unavailable(self) -> MissingDependencyError | None:
        """Return the reason why the runtime cannot run here, or None where it can."""
        try:
            runner(self.runtime).availability().require(self.runtime)
        except MissingDependencyError as error:
            return error
        return None


@dataclass(frozen=True)
class Case:
    """One cell to measure."""

    bundle: Bundle
    target: Target
    batch: int

    @property
    def key(self) -> str:
        """Unique within a plan."""
        return f"{self.bundle.name}/{self.target.label}/b{self.batch}"

    @property
    def runs_as(self) -> RuntimePrecision:
        """Runtime, and the precision in which it runs the bundle."""
        return RuntimePrecision(self.target.runtime, self.target.precision_on(self.bundle))


@dataclass(frozen=True)
class BenchPlan:
    """Every bundle on every target at every batch size.

    Args:
        batches: images per call. For `multi-stream` 8; for `offline`, none at all stands for the best, found by a search.
        scenario: after MLPerf Inference. `single-stream` starts a call when the last has ended and times each; `multi-stream` is
            the same with 8 images a call; `offline` hands over batches as fast as the runtime takes them and times them as a
            whole, so there are no latencies; `server` lets queries arrive at random, whether or not the last was answered.
        seconds: least measured time of a cell, over all rounds; warm-up comes on top.
        min_count: least number of calls of a cell, over all rounds.
        rounds: slices of a cell's time, interleaved with those of the others; ratios need at least three.
        processes: of a cell, one after the other, among which its rounds are divided. One draws its speed, within some percent,
            when it starts; from three on, intervals of ratios know how much that matters.
        threads: CPU threads of every runtime.
        baseline: name of the bundle that others are compared with; by default the first dense one.
        timeout_s: longest time for any one step of a worker.
        rate: server: queries per second, Poisson; None searches for the highest that keeps to `p99_bound_ms`.
        p99_bound_ms: server: longest 99th percentile of latency that is good enough.
        cpus: logical processors for every worker; None leaves them those of this process.
        only: bundle name -> runtimes that it is measured on; those not named are measured on all.
        labels: bundle name -> a short label for tables, unique in the comparison; those not named go by their name.
    """

    bundles: tuple[Bundle, ...]
    targets: tuple[Target, ...]
    batches: tuple[int, ...]
    threads: int
    scenario: Scenario = "single-stream"
    seconds: float = 5.0
    min_count: int = 50
    rounds: int = 10
    processes: int = 1
    baseline: str | None = None
    timeout_s: float = 600.0
    only: Mapping[str, Collection[str]] = field(default_factory=dict)
    rate: float | None = None
    p99_bound_ms: float | None = None
    cpus: tuple[int, ...] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """Minimum number of calls of a cell; under a bound on p99, as many as a p99 needs."""
        from runtime.results.statistics import samples_for  # brings scipy, which opening a session does not need

        return self.min_count if self.p99_bound_ms is None else max(self.min_count, samples_for(99))

    @property
    def rounds_per_process(self) -> int:
        """Rounds after which every cell gets a fresh process."""
        return math.ceil(self.rounds / self.processes)

    @property
    def searches_batch(self) -> bool:
        """True if the best batch of every cell is to be searched for."""
        return self.scenario == "offline" and not self.batches

    def check(self) -> None:
        """Refuse a plan that cannot be measured.

        Raises:
            InputError: a number is not positive, a list is empty, two bundles share a name, or the baseline is none of them.
        """
        for name in ("bundles", "targets", *(() if self.searches_batch else ("batches",))):
            if not getattr(self, name):
                raise InputError(f"expected at least one of {name}, got none", f"name the {name} to measure")
        counts = {"threads": self.threads, "rounds": self.rounds, "processes": self.processes}
        for name, value in (*(("batch", batch) for batch in self.batches), *counts.items()):
            if value < 1:
                raise InputError(f"expected {name} of at least 1, got {value}", f"give a larger {name}")
        if not self.seconds > 0:
            raise InputError(f"expected a duration above 0 s, got {self.seconds:g}", "give a longer --duration")
        self._check_scenario()
        names = Counter(bundle.name for bundle in self.bundles)
        for name, count in names.items():
            if count > 1:
                raise InputError(f"{count} bundles are called '{name}': results go by the name", "export one under another name")
        if self.baseline is not None and self.baseline not in names:
            raise InputError(f"baseline '{self.baseline}' is not among the bundles", f"choose one of: {', '.join(sorted(names))}")

    def _check_scenario(self) -> None:
        if self.scenario == "multi-stream" and self.batches != (MULTI_STREAM,):
            found = ",".join(map(str, self.batches))
            raise InputError(
                f"multi-stream: expected batch size {MULTI_STREAM}, got {found}", "leave out -b, or use single-stream"
            )
        given = {"--rate": self.rate, "--p99-bound": self.p99_bound_ms}
        for name, value in given.items():
            if value is not None and self.scenario != "server":
                raise InputError(f"{name} belongs to the server scenario, got {self.scenario}", "add --scenario server")
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"expected {name} above 0, got {value:g}", f"give a larger {name}")
        if self.scenario == "server" and not any(given.values()):
            raise InputError("server: expected a rate or a bound, got neither", "give --rate (queries/s) or --p99-bound (ms)")
        if self.cpus is not None and (unknown := sorted(set(self.cpus) - set(usable_cpus()))):
            known = ",".join(map(str, usable_cpus()))
            raise InputError(f"expected processors among {known}, got {unknown[0]}", "choose others with --cpus")

    def cases(self) -> list[Case]:
        """Return the cells, without repetition, in report order; batch 1 where it is to be searched for."""
        product = itertools.product(self.batches or (1,), self.targets, self.bundles)
        cases = (
            Case(bundle, one, batch)
            for batch, target, bundle in product
            if target.runtime in self.only.get(bundle.name, (target.runtime,))
            for one in target.on(bundle)
        )
        return list({case.key: case for case in cases}.values())

    def options(self, case: Case) -> RunOptions:
        """Return the options of the case's session."""
        hint: Hint = "throughput" if self.scenario == "offline" else "latency"
        return case.target.options(self.threads, case.batch, hint)
