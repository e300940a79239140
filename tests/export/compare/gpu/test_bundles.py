"""What the GPU suite asks of bundles and of the runtimes, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.bundle.plan import ExportOptions
from export.compare.gpu import bundle_paths
from export.compare.gpu.bundle_paths import _engine_availability
from export.compare.gpu.bundles import random_bundle
from runtime.runners.availability import Availability
from runtime.runners.base import RunOptions
from runtime.runners.ort import OrtSession
from runtime.runners.trt.cuda import Stream
from runtime.runners.trt.library import RTX, TENSORRT, Flavor
from vitnla.model import ViTConfig


def test_a_bound_run_gives_the_logits_of_an_fp16_bundle(tiny_config: ViTConfig, tmp_path: Path) -> None:
    made = random_bundle(tiny_config, tmp_path / "b", ExportOptions(precision="fp16"), "test")
    assert random_bundle(tiny_config, tmp_path / "b", ExportOptions(precision="fp16"), "test").manifest == made.manifest
    images, logits = made.reference()
    session = OrtSession("ort", made, RunOptions(threads=1))
    launch, out = session.bind(images)
    launch()
    np.testing.assert_array_equal(out.numpy(), session.run(images))
    np.testing.assert_allclose(out.numpy(), logits, atol=2e-2 * np.abs(logits).max())


def test_rtx_is_skipped_on_data_centre_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Flavor, "can_run", lambda self: Availability(True))
    monkeypatch.setattr(bundle_paths, "compute_capability", lambda: (9, 0))
    assert _engine_availability(RTX).reason == "TensorRT for RTX does not support SM90"
    assert _engine_availability(TENSORRT).ok
    monkeypatch.setattr(bundle_paths, "compute_capability", lambda: (8, 9))
    assert _engine_availability(RTX).ok


def test_events_surround_the_work_and_are_freed_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    class Cudart:
        class cudaError_t:
            cudaSuccess = 0

        def __getattr__(self, name: str) -> Callable[..., tuple[object, ...]]:
            return lambda *given: done.append(name.removeprefix("cuda")) or (0, 2.5)

    monkeypatch.setattr("runtime.runners.trt.cuda._cudart", Cudart)
    stream = Stream()
    assert stream.elapsed_ms(lambda: done.append("work")) == 2.5
    around = ["EventRecord", "work", "EventRecord", "EventSynchronize", "EventElapsedTime"]
    assert done == ["StreamCreate", "EventCreate", "EventCreate", *around, "EventDestroy", "EventDestroy"]
    with pytest.raises(ZeroDivisionError):
        stream.elapsed_ms(lambda: 1 / 0)
    assert done[-3:] == ["EventRecord", "EventDestroy", "EventDestroy"]
