"""The same evaluation by Ray Data on a real cluster of two nodes of this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from export.batch.evaluate import EvaluationRequest, evaluate
from runtime.bench.plan import Target
from runtime.bundle.schema import Bundle
from tests.helpers.evaluations import quiet, rows

ray = pytest.importorskip("ray", reason="ray is not installed: pip install vitdeploy[cluster]")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two nodes of one CPU each, and the address of their head."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.add_node(num_cpus=1, object_store_memory=100 << 20)
    made.wait_for_nodes()
    yield made.address
    ray.shutdown()
    made.shutdown()


def request(bundle: Bundle, output: Path, **changes: object) -> EvaluationRequest:
    values: dict[str, object] = {
        "bundle": bundle, "target": Target("ort"), "data": "demo", "split": "test", "destination": output, "engine": "ray",
        "address": None, "workers": 2, "threads": 1, "batch": 16, "shard": 100, "limit": None, "repeat": 1, "replace": False,
    }  # fmt: skip
    return EvaluationRequest(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 small images, of which three cannot be read."""
    import numpy as np
    from PIL import Image

    root, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for number in range(400):
        Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(root / f"{number:03d}.png")
    for number in (5, 170, 399):
        (root / f"{number:03d}.png").write_text("no image")
    return root


def test_two_nodes_give_what_local_processes_give_though_an_actor_is_killed(
    tiny_bundle: Bundle, photos: Path, cluster: str, tmp_path: Path
) -> None:
    asked = {"data": f"folder:{photos}", "shard": 10}
    evaluate(request(tiny_bundle, tmp_path / "local", engine="local", workers=1, **asked), quiet)
    killed: list[int] = []
    left: list[int] = []

    def kill_an_actor(done: float, total: float, item: str) -> None:
        if done and not killed:
            actors = [process for process in psutil.process_iter(["cmdline"]) if is_actor(process)]
            os.kill(actors[0].pid, signal.SIGKILL)
            left.append(40 - len(list((tmp_path / "ray" / "parts").glob("part-*"))))
            killed.append(actors[0].pid)

    def is_actor(process: psutil.Process) -> bool:
        """Only a descendant of this very process: the nodes are its children."""
        ours = {child.pid for child in psutil.Process().children(recursive=True)}
        return process.pid in ours and any("MapWorker" in word for word in process.info["cmdline"] or ())

    summary = evaluate(request(tiny_bundle, tmp_path / "ray", address=cluster, **asked), kill_an_actor)
    assert len(killed) == 1
    assert left[0] > 0, "everything was done before the actor was killed"
    assert summary.unreadable == 3
    assert [row["index"] for row in rows(tmp_path / "ray")] == list(range(400))
    assert rows(tmp_path / "ray") == rows(tmp_path / "local")
    assert (tmp_path / "ray" / "unreadable.jsonl").read_text() == (tmp_path / "local" / "unreadable.jsonl").read_text()
