"""Worker process of the local engine: `python -m export.batch.worker`, with the protocol of `runtime.process.server`."""

from __future__ import annotations

from pathlib import Path

from export.batch.predictor import Predictor
from runtime.process.server import Answer, serve


class Commands:
    """Commands of the worker process."""

    def __init__(self) -> None:
        self._predictor: Predictor | None = None

    def load(self, folder: str, threads: int) -> Answer:
        """Open the bundle and the images of the evaluation in `folder`."""
        self._predictor = Predictor(Path(folder), threads)
        return {}

    def shard(self, number: int) -> Answer:
        """Run one shard and return its report."""
        if self._predictor is None:
            raise RuntimeError("nothing is loaded yet: send 'load' first")
        return self._predictor.run(number).model_dump()


if __name__ == "__main__":
    commands = Commands()
    serve({"load": commands.load, "shard": commands.shard})
