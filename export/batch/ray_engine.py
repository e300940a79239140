"""Ray engine: shards run by actors of a Ray Data pipeline, one runner each. Ray restarts dead actors and repeats their tasks."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.batch.part import PartReport
from export.batch.predictor import Predictor
from runtime.process.child import WorkerError
from vitnla.common.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from ray.data import Dataset

_ROOT = Path(__file__).resolve().parent.parent.parent
_STORE_BYTES = 100 << 20  # only numbers of shards and reports travel through Ray's store
_MAX_BLOCKS = 10_000
_CONNECT_S = 10.0


class Actor:
    """Ray actor with a predictor. A batch is one shard's number, the result its report as JSON."""

    def __init__(self, folder: str, threads: int) -> None:
        self._predictor = Predictor(Path(folder), threads)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run the shards whose numbers are in the batch."""
        return {"report": np.array([self._predictor.run(int(number)).model_dump_json() for number in batch["number"]])}


def require_ray(address: str | None) -> None:
    """Check, before any work, that Ray is installed and that the address answers: Ray itself would retry for minutes.

    Raises:
        MissingDependencyError: Ray is missing.
        InputError: the address does not answer.
    """
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"engine 'ray' cannot run here: {error}", "pip install vitdeploy[cluster]") from error
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        message = f"no Ray cluster at {address}: {error.strerror or error}"
        raise InputError(message, "start one with: ray start --head --port=6379") from error


def run_ray(folder: Path, shards: Sequence[int], workers: int, threads: int, address: str | None) -> Iterator[PartReport]:
    """Yield the reports of shards in order of completion.

    Args:
        folder: of the evaluation, at the same path on every node.
        shards: to do.
        workers: actors, each with a runner of its own.
        threads: CPUs of an actor.
        address: of a running cluster; `None` starts one on this machine for this call.

    Raises:
        InputError: there is no cluster at the address, or an actor raised an InputError.
        WorkerError: a task failed for good.
    """
    import ray
    from ray.exceptions import RayError

    with _cluster(address, workers * threads):
        pipeline = _pipeline(folder, shards, workers, threads)
        try:
            for row in pipeline.iter_rows():
                yield PartReport.model_validate_json(str(row["report"]))
        except RayError as error:
            cause = error.cause if isinstance(error, ray.exceptions.RayTaskError) else error
            if isinstance(cause, InputError):
                raise InputError(cause.message, cause.hint) from error
            line = str(cause).strip().splitlines()
            raise WorkerError(f"Ray: {line[-1] if line else type(cause).__name__}", "see the traceback with --debug") from error


def _pipeline(folder: Path, shards: Sequence[int], workers: int, threads: int) -> Dataset:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    tasks = ray.data.from_items([{"number": number} for number in shards], override_num_blocks=min(len(shards), _MAX_BLOCKS))
    return tasks.map_batches(
        Actor, batch_size=1, concurrency=min(workers, len(shards)), num_cpus=threads, zero_copy_batch=True,
        fn_constructor_kwargs={"folder": str(folder), "threads": threads},
    )  # fmt: skip


@contextlib.contextmanager
def _cluster(address: str | None, cpus: int) -> Iterator[None]:
    """Connect to the cluster, or start a local one; an existing connection of the caller is reused and left open."""
    import ray

    if ray.is_initialized():
        yield
        return
    own: dict[str, Any] = {} if address else {"num_cpus": cpus, "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.CRITICAL,
            runtime_env={"env_vars": {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}}, **own,
        )  # fmt: skip
    except (ConnectionError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"no Ray cluster at {address}: {line}", "start one with: ray start --head") from error
    try:
        yield
    finally:
        ray.shutdown()
