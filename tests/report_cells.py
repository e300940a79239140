"""Synthetic bench cells for the tests of `runtime.report`: invented numbers, drawn from a seeded generator, measured nowhere."""

from __future__ import annotations

import numpy as np

from runtime.results import Cell, Latency, Ratio
from vitnla.common.measures import Accuracy, Cost, LayerRow

DIM, DEPTH, IMAGES = 192, 6, 10_000
SHAPES = {"qkv": (3 * DIM, DIM), "proj": (DIM, DIM), "fc1": (4 * DIM, DIM), "fc2": (DIM, 4 * DIM)}
DENSE_MACS = DEPTH * sum(m * n for m, n in SHAPES.values())
SPEED = {"ort": 1.0, "openvino": 1.13, "torch": 0.55}
BUNDLES = {
    "dense": (1.0, 0.9352),
    "svd-0.80": (0.80, 0.9311),
    "svd-0.65": (0.65, 0.9204),
    "svd-0.50": (0.50, 0.8871),
    "svd-plain-0.65": (0.65, 0.1043),
}
MACHINE = {"cpu": "Example CPU @ 2.50 GHz", "cores": 2, "memory_gib": 8, "os": "Example Linux 1.0", "python": "3.11"}


def sample_cells(run: str = "run-a", machine: dict[str, object] | None = None) -> list[Cell]:
    """Every bundle on every runtime at batch 1 and 16, and one cell that failed."""
    rng = np.random.default_rng(7)
    cells = [
        _cell(rng, run, machine or MACHINE, bundle, runtime, batch)
        for batch in (1, 16)
        for runtime in SPEED
        for bundle in BUNDLES
    ]
    failed = {
        "error": "runtime 'trt' cannot run here: no NVIDIA GPU was found",
        "runtime": "trt",
        "bundle": "dense",
        "method": "none",
    }
    return [*cells, Cell(**_identity(run, machine or MACHINE), precision="fp32", batch=1, scenario="single-stream", **failed)]


def _identity(run: str, machine: dict[str, object]) -> dict[str, object]:
    command = "vitdeploy bench artifacts/dense artifacts/svd-0.80 artifacts/svd-0.65 artifacts/svd-0.50 --runtime ort --runtime openvino -b 1,16"
    return {"run": run, "created": "2026-01-02T03:04:05Z", "command": command, "bundle_path": "artifacts/x", "machine": machine}


def _cell(rng: np.random.Generator, run: str, machine: dict[str, object], bundle: str, runtime: str, batch: int) -> Cell:
    macs, top1 = BUNDLES[bundle]
    factor = SPEED[runtime] / (0.45 + 0.55 * macs if batch > 1 else 0.75 + 0.25 * macs)
    median = batch**0.9 * 4.0 / factor
    samples = median * (1 + rng.gamma(2.0, 0.02, size=900) + 0.25 * (rng.random(900) < 0.02) - 0.02)
    rounds = rng.normal(1000 * batch / median, 3 * batch, size=12)
    width = 1.96 * (top1 * (1 - top1) / IMAGES) ** 0.5
    return Cell(
        **_identity(run, machine),
        bundle=bundle,
        method="none" if bundle == "dense" else "svd",
        runtime=runtime,
        precision="fp32",
        batch=batch,
        scenario="single-stream",
        images_per_s=float(rounds.mean()),
        latency_ms=Latency(p50=float(np.median(samples)), p90=float(np.percentile(samples, 90)), p99=None),
        samples_ms=tuple(map(float, samples)),
        rounds_images_per_s=tuple(map(float, rounds)),
        warnings=("coefficient of variation 4.1 % is above 2.5 %",) if runtime == "torch" else (),
        load_s=0.2,
        first_inference_ms=2 * median,
        peak_rss_mb=60 + 25 * macs + 1.5 * batch + (90 if runtime == "torch" else 0),
        model_mb=10.6 * macs + 0.4,
        macs=Cost(dense=DENSE_MACS, model=int(macs * DENSE_MACS)),
        parameters=Cost(dense=DENSE_MACS, model=int(macs * DENSE_MACS)),
        top1=top1,
        top1_low=top1 - width,
        top1_high=top1 + width,
        agreement=1.0 if bundle == "dense" else min(1.0, top1 + 0.04),
        accuracy_images=IMAGES,
        export_accuracy=Accuracy(split="test", fingerprint="0" * 8, images=IMAGES, dense_top1=0.9352, top1=top1, agreement=top1),
        layers=_layers(rng, macs),
        ratio=None
        if (bundle, runtime) == ("dense", "ort")
        else Ratio(baseline=f"dense/ort/fp32/b{batch}", value=factor, low=factor - 0.03, high=factor + 0.03),
        facts={"version": "1.0", "providers": ["CPUExecutionProvider"], "precision": "fp32", "threads": 2},
    )


def _layers(rng: np.random.Generator, macs: float) -> tuple[LayerRow, ...]:
    return tuple(
        LayerRow(
            block=block,
            linear=linear,
            rank=rank,
            full_rank=min(m, n),
            macs=rank * (m + n) if rank else m * n,
            parameters=rank * (m + n) if rank else m * n,
            relative_error=float(rng.uniform(0.5, 1.0) * (1 - macs) * 0.6) if rank else 0.0,
            retained_energy=float(1 - (1 - macs) * 0.1) if rank else 1.0,
        )
        for block in range(DEPTH)
        for linear, (m, n) in SHAPES.items()
        for rank in [
            None
            if macs == 1.0 or (linear == "proj" and block == 0)
            else 8 * int(macs * m * n / (m + n) / 8 * rng.uniform(0.7, 1.1))
        ]
    )
