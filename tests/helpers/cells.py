"""Results made by hand, for the tests of the report."""

from __future__ import annotations

from runtime.results.schema import Cell


def bare_cell(**changes: object) -> Cell:
    """A cell with the required fields only."""
    fields = {
        "run": "r", "created": "now", "command": "c", "bundle": "svd", "bundle_path": "p", "method": "svd", "runtime": "ort",
        "precision": "fp32", "batch": 1, "scenario": "single-stream",
    }  # fmt: skip
    return Cell.model_validate({**fields, **changes})


def cell(bundle: str, rate: float, top1: float, **changes: object) -> Cell:
    """A measured cell; `dense` is the dense bundle, every other one is decomposed."""
    fields = {
        "run": "r1", "created": "2026-01-01T00:00:00+00:00", "command": "vitdeploy bench", "bundle": bundle, "bundle_path": "x",
        "method": "none" if bundle == "dense" else "svd", "runtime": "ort", "precision": "fp32", "batch": 1, "scenario": "single-stream",
        "images_per_s": rate, "latency_ms": {"p50": 1.1, "p90": 1.2, "p99": None}, "samples_ms": (1.0, 1.1, 1.2),
        "top1": top1, "top1_low": top1 - 0.01, "top1_high": top1 + 0.01, "agreement": 0.98, "peak_rss_mb": 21.5, "model_mb": 6.73,
    }  # fmt: skip
    return Cell.model_validate(fields | changes)


def ratio(baseline: str, value: float) -> dict[str, object]:
    """A speed against a baseline cell with its interval."""
    return {"baseline": baseline, "value": value, "low": value - 0.1, "high": value + 0.1}


def series(runtime: str = "ort", batch: int = 1, scale: float = 1.0) -> list[Cell]:
    """A dense bundle, and two methods at three budgets each."""
    place = {"runtime": runtime, "batch": batch}
    baseline = f"dense/{runtime}/fp32/b{batch}"
    cells = [cell("dense", 330 * scale, 0.934, **place)]
    for budget, rate, plain, centred in ((0.8, 1.1, 0.923, 0.933), (0.65, 1.22, 0.916, 0.932), (0.5, 1.4, 0.10, 0.930)):
        for name, top1 in ((f"demo-svd-plain-{budget}-uniform", plain), (f"demo-svd-{budget}", centred)):
            cells.append(cell(name, 330 * rate * scale, top1, **place, ratio=ratio(baseline, rate)))
    return cells
