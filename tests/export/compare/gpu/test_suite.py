"""The walk of the GPU suite, on stand-ins for the paths; and the command itself, which on a machine without a GPU skips every path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from export.compare.gpu.paths import GpuPath, Ready
from export.compare.gpu.records import Ceiling, GpuResults, Half, Key
from export.compare.gpu.shapes import Shape
from export.compare.gpu.suite import Effort, exit_code, run_suite
from runtime.runners.availability import Availability
from runtime.runners.trt.cuda import has_driver

ROOT = Path(__file__).parents[4]
SHAPE = Shape("S/16", "dense")
FRESH = GpuResults(name="test", command="gpu_suite.sh", machine={"cpu": "x", "packages": {}, "gpus": []})


class Fake:
    """A path that takes half a millisecond by its own events, and fails at one batch size as long as it is told to."""

    def __init__(self) -> None:
        self.prepared: list[int] = []
        self.launched = self.closed = 0
        self.broken: int | None = 8

    def prepare(self, key: Key) -> Ready:
        self.prepared.append(key.batch)
        if key.batch == self.broken:
            raise RuntimeError("out of memory\nand a long story")
        return Ready(self.launch, lambda: None, self.elapsed_ms, {"version": "1"}, self.close)

    def launch(self) -> None:
        self.launched += 1

    def close(self) -> None:
        self.closed += 1

    def elapsed_ms(self, work: object) -> float:
        before = self.launched
        work()  # type: ignore[operator]
        return 0.5 * (self.launched - before)


def ceiling(precision: Half) -> Ceiling:
    return Ceiling(precision=precision, side=2, tflops=100.0)


def run(fake: Fake, results: GpuResults, file: Path) -> tuple[GpuResults, list[str]]:
    said: list[str] = []
    here = GpuPath("fake", "fp16", lambda: Availability(True), fake.prepare)
    absent = GpuPath("absent", "bf16", lambda: Availability(False, "it is not there", "buy one"), fake.prepare)
    effort = Effort(seconds=0.0, calls=3, windows=2, window_ms=0.01)
    return run_suite((here, absent), results, file, said.append, ceiling, effort, (SHAPE,), (1, 8)), said


@pytest.fixture(autouse=True)
def _no_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.compare.gpu.suite.warm_up", lambda call: True)


def test_rows_hold_both_clocks_and_the_share_of_the_ceiling(tmp_path: Path) -> None:
    fake = Fake()
    results, said = run(fake, FRESH, tmp_path / "gpu-test.json")
    first, second = results.rows
    assert first.measured is not None
    assert (len(first.measured.host_ms), first.measured.event_ms) == (3, (0.5, 0.5))
    assert first.measured.tflops == pytest.approx(9.197764608 / 0.5)  # GFLOP per ms is TFLOP per s
    assert first.measured.ceiling_share == pytest.approx(first.measured.tflops / 100)
    assert (second.failure, fake.closed) == ("RuntimeError: out of memory", 1)
    assert [(one.path, one.reason) for one in results.skipped] == [("absent", "it is not there")]
    assert [one.precision for one in results.ceilings] == ["fp16"]  # none for a path that is not there
    assert said[0] == "absent: skipped, since it is not there"
    assert GpuResults.read(tmp_path / "gpu-test.json") == results
    assert exit_code(results) == 1


def test_without_a_ceiling_there_is_no_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.__globals__, "ceiling", lambda precision: None)
    results, said = run(Fake(), FRESH, tmp_path / "gpu-test.json")
    assert results.rows[0].measured is not None
    assert (results.rows[0].measured.ceiling_share, results.ceilings) == (None, ())
    assert "matmul ceiling in fp16: not measured, since torch has no GPU here" in said


def test_a_second_run_measures_only_what_failed(tmp_path: Path) -> None:
    fake = Fake()
    results, _ = run(fake, FRESH, tmp_path / "gpu-test.json")
    fake.broken, fake.prepared = None, []
    again, _ = run(fake, results.model_copy(update={"skipped": ()}), tmp_path / "gpu-test.json")
    assert fake.prepared == [8]
    assert again.rows[0] == results.rows[0]
    assert (len(again.done), exit_code(again)) == (2, 0)


def test_an_interrupt_leaves_the_rows_that_were_done(tmp_path: Path) -> None:
    fake = Fake()

    def interrupted(key: Key) -> Ready:
        if key.batch == 8:
            raise KeyboardInterrupt
        return Fake.prepare(fake, key)

    fake.prepare = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(fake, FRESH, tmp_path / "gpu-test.json")
    assert [row.batch for row in GpuResults.read(tmp_path / "gpu-test.json").rows] == [1]


@pytest.mark.skipif(has_driver() or torch.cuda.is_available(), reason="this machine has an NVIDIA driver: the suite would run")
def test_without_a_gpu_the_command_skips_everything_and_says_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts/gpu_suite.sh", "--name", "none", "-o", tmp_path],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHON": sys.executable},
    )  # fmt: skip
    results = GpuResults.read(tmp_path / "gpu-none.json")
    assert (done.returncode, results.rows) == (3, ())
    torch_names = {f"torch{kind}-{half}" for kind in ("", "-compile") for half in ("fp16", "bf16")}
    assert {one.path for one in results.skipped} == torch_names | {"ort-cuda", "ort-tensorrt", "trt", "trt-rtx"}
    assert all(f"{one.path}: skipped, since {one.reason}" in done.stderr for one in results.skipped)
    assert "error: nothing here can be measured" in done.stderr
    assert "Traceback" not in done.stderr
