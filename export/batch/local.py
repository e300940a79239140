"""Local engine: shards run by processes of this machine. A process that dies is replaced, and its shard repeated."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from export.batch.part import PartReport
from runtime.process.child import Child, WorkerError

_ATTEMPTS = 3
_TIMEOUT_S = 1800.0


def run_local(folder: Path, shards: Sequence[int], workers: int, threads: int) -> Iterator[PartReport]:
    """Yield the reports of shards in order of completion.

    Raises:
        WorkerError: three processes died on the same shard, or one hit a bug.
        InputError: the bundle or the data cannot be opened.
    """
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in shards:
        tasks.put(number)
    done: queue.SimpleQueue[PartReport | Exception] = queue.SimpleQueue()
    stop = threading.Event()
    count = min(workers, len(shards))
    pool = [threading.Thread(target=_serve, args=(folder, threads, tasks, done, stop), daemon=True) for _ in range(count)]
    for thread in pool:
        thread.start()
    try:
        for _ in shards:
            found = done.get()
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        stop.set()
        for thread in pool:
            thread.join()


def _serve(
    folder: Path,
    threads: int,
    tasks: queue.SimpleQueue[int],
    done: queue.SimpleQueue[PartReport | Exception],
    stop: threading.Event,
) -> None:
    """Run tasks in a process, replaced when it dies, until no tasks are left."""
    child: Child | None = None
    try:
        while not stop.is_set():
            number = tasks.get_nowait()
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    if child is None:
                        child = Child("export.batch.worker", _TIMEOUT_S)
                        child.ask("load", folder=str(folder), threads=threads)
                    done.put(PartReport.model_validate(child.ask("shard", number=number)))
                    break
                except WorkerError:
                    if child is not None:
                        child.kill()
                        child.close()
                    child = None
                    if attempt == _ATTEMPTS or stop.is_set():
                        raise
    except queue.Empty:
        pass
    except Exception as error:
        done.put(error)
    finally:
        if child is not None:
            child.close()
