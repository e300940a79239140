"""Check a bundle on every runtime: its reference inputs must give its reference outputs."""

from __future__ import annotations

from typing import Literal

from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle
from runtime.check.parity import ParityRow, check_parity
from runtime.runners.registry import runner_names
from vitnla.common.errors import InputError, MissingDependencyError
from vitnla.common.schema import Record


class Check(Record):
    """The reference inputs of one bundle on one runtime."""

    bundle: str
    bundle_path: str
    runtime: str
    verdict: Literal["met", "not met", "skipped"]
    tolerance: float | None = None
    max_rel: float | None = None
    """Null where nothing was computed, or the result is not finite."""
    reason: str | None = None
    """The reason why it was skipped, or the failure."""


def verification_targets(runtimes: list[str] | None) -> tuple[Target, ...]:
    """Return the runtimes named, each once; by default all that are registered, whether they can run here or not.

    Raises:
        InputError: a name is unknown.
        MissingDependencyError: one that was named cannot run here.
    """
    targets = tuple(Target(name) for name in dict.fromkeys(runtimes or runner_names()))
    if runtimes:
        for target in targets:
            if (error := target.unavailable()) is not None:
                raise error
    return targets


def self_check(bundle: Bundle, target: Target, *, threads: int, required: bool) -> Check:
    """Run a bundle's reference inputs on a runtime and compare with its reference outputs.

    Args:
        bundle: an opened bundle, so its hashes are right.
        target: where to run it.
        threads: CPU threads.
        required: a runtime that cannot run it is an error; otherwise it is skipped, with the reason.

    Raises:
        MissingDependencyError: the runtime is required, and it cannot run here or has no engine for this bundle.
    """
    named = Check(bundle=bundle.name, bundle_path=str(bundle.folder), runtime=target.label, verdict="skipped")
    try:
        return _with_result(named, check_parity(bundle, target, threads=threads))
    except MissingDependencyError as error:
        if required:
            raise
        return named.model_copy(update={"reason": error.message})
    except InputError as error:  # the runtime refused the graph or the checkpoint
        return named.model_copy(update={"verdict": "not met", "reason": error.message})


def _with_result(check: Check, row: ParityRow) -> Check:
    update = {"verdict": row.verdict, "tolerance": row.tolerance, "max_rel": row.max_rel, "reason": row.error}
    return check.model_copy(update=update)
