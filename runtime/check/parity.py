"""Compare the logits and classes of a runtime with those of the reference: torch, or the ONNX graph that was given."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle
from runtime.check.accuracy import Evaluation, evaluate
from runtime.check.logits import as_log, least_cosine, mean_divergence, relative_error
from runtime.process.child import WorkerError
from runtime.process.client import Worker
from runtime.runners.registry import runner
from vitnla.common.schema import Record

TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "int8": 2e-1, "int8-dynamic": 2e-1, "fp8": 2e-1}
"""Largest |runtime - torch fp32| / max |torch fp32| over the reference logits.

fp32 differs by the order of summation, through a dozen blocks. fp16 and bf16 allow some ten to twenty times the unit round-off
(2^-11, 2^-8) of one operation. int8 and fp8 are a coarse check that nothing is broken: there the accuracy decides.
"""


class ParityRow(Record):
    """One bundle on one runtime, against its own reference logits and against the dense torch model's classes."""

    bundle: str
    bundle_path: str
    runtime: str
    precision: str
    tolerance: float
    max_rel: float | None = None
    """Null where the logits are not finite or the runtime failed; `error` says which."""
    cosine: float | None = None
    """Smallest cosine of logits and reference over the reference images."""
    divergence: float | None = None
    """Mean KL(reference || runtime) of the class probabilities over the reference images, nats."""
    reference_images: int = 0
    images: int | None = None
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    agreement: float | None = None
    lost: int | None = None
    """Images that the dense torch model has right and this one wrong."""
    gained: int | None = None
    """The reverse."""
    p_value: float | None = None
    """p-value of McNemar's exact test of lost against gained."""
    calibration_error: float | None = None
    """Expected calibration error, 15 bins."""
    warnings: tuple[str, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    error: str | None = None

    @property
    def verdict(self) -> Literal["met", "not met"]:
        """`met` if the logits are within the tolerance. Accuracy does not count."""
        return "met" if self.max_rel is not None and self.max_rel <= self.tolerance else "not met"


def check_parity(
    bundle: Bundle,
    target: Target,
    *,
    threads: int,
    batch: int = 8,
    evaluation: Evaluation | None = None,
    timeout_s: float = 600.0,
) -> ParityRow:
    """Run the bundle's reference inputs, and an evaluation split if given, in a worker process.

    Args:
        bundle: what to check.
        target: where to run it.
        threads: CPU threads.
        batch: batch size of all runs, unless the bundle has a fixed one.
        evaluation: a labelled split.
        timeout_s: longest time for any one step.

    Raises:
        MissingDependencyError: the runtime cannot run here, or has no engine for this bundle.
        InputError: the runtime's name is unknown, or it cannot load the bundle.
    """
    runner(target.runtime).availability().require(target.runtime)
    precision = target.precision_on(bundle)
    row = ParityRow(
        bundle=bundle.name, bundle_path=str(bundle.folder), runtime=target.label, precision=precision, tolerance=TOLERANCES[precision],
    )  # fmt: skip
    try:
        with Worker(timeout_s) as worker:
            options = target.options(threads, bundle.fixed_batch or batch)
            facts = worker.load(target.runtime, bundle, options)["facts"]
            return row.model_copy(update={"facts": facts, **_compare(worker, bundle), **_score(worker, bundle, evaluation)})
    except WorkerError as error:
        return row.model_copy(update={"error": error.message})


def _compare(worker: Worker, bundle: Bundle) -> dict[str, Any]:
    images, reference = bundle.reference()
    logits = worker.infer(images)
    max_rel = relative_error(logits, reference)
    known: dict[str, Any] = {"reference_images": len(images)}
    if not np.isfinite(max_rel):
        return {**known, "error": "the logits hold NaN or infinity"}
    known |= {"max_rel": max_rel, "cosine": least_cosine(logits, reference)}
    if bundle.gives_probabilities:
        return {**known, "divergence": mean_divergence(as_log(reference), as_log(logits))}
    return {**known, "divergence": mean_divergence(reference, logits)}


def _score(worker: Worker, bundle: Bundle, evaluation: Evaluation | None) -> dict[str, Any]:
    if evaluation is None:
        return {}
    score = evaluate(worker.infer, bundle, evaluation)
    return {
        "images": score.images, "top1": score.top1.value, "top1_low": score.top1.low, "top1_high": score.top1.high,
        "agreement": score.agreement, "lost": score.lost, "gained": score.gained, "p_value": score.p_value,
        "calibration_error": score.calibration_error, "warnings": score.warnings,
    }  # fmt: skip
