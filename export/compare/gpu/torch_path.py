"""PyTorch on a GPU, eager and compiled with CUDA graphs. Written to the documented API, and not yet run on a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial

import torch

from export.compare.gpu.paths import GpuPath, Ready
from export.compare.gpu.records import Ceiling, Half, Key
from export.compare.gpu.shapes import IMAGE_SIZE, vit_config
from runtime.bundle.engines import FIRST_GPU
from runtime.runners.availability import Availability
from vitnla.model.vit import VisionTransformer

_DTYPES: dict[Half, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
_GRAPHS = "reduce-overhead"
"""The mode of `torch.compile` that captures CUDA graphs."""
_SIDE, _LAUNCHES, _WINDOWS = 8192, 10, 10


def torch_paths() -> tuple[GpuPath, ...]:
    """Return the paths of eager and compiled PyTorch, in both half precisions."""
    return tuple(
        GpuPath(f"{name}-{precision}", precision, partial(_availability, precision, graphs), partial(_prepare, precision, graphs))
        for name, graphs in (("torch", False), ("torch-compile", True))
        for precision in _DTYPES
    )


def _availability(precision: Half, graphs: bool) -> Availability:
    if torch.version.cuda is None:
        return Availability(False, f"torch {torch.__version__} is built without CUDA", "install a torch wheel that has CUDA")
    if not torch.cuda.is_available():
        return Availability(False, "torch found no NVIDIA GPU", "use a machine with an NVIDIA GPU and its driver")
    major, minor = torch.cuda.get_device_capability()
    if 10 * major + minor < FIRST_GPU[precision]:
        return Availability(False, f"SM{major}{minor} has no {precision}", f"use a GPU from SM{FIRST_GPU[precision]} on")
    if graphs and importlib.util.find_spec("triton") is None:
        return Availability(False, "torch.compile needs Triton on a GPU, and it is not installed", "pip install triton")
    return Availability(True)


def _prepare(precision: Half, graphs: bool, key: Key) -> Ready:
    """Put a ViT of random weights and random images [B, 3, 224, 224] on the GPU at one precision."""
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = VisionTransformer(vit_config(key.shape)).to(_DTYPES[precision]).eval()
        images = torch.randn(key.batch, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=_DTYPES[precision])
    run: Callable[[torch.Tensor], torch.Tensor] = torch.compile(model, mode=_GRAPHS, dynamic=False) if graphs else model

    @torch.no_grad()
    def launch() -> None:
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        run(images)

    facts = {
        "version": torch.__version__, "cuda": torch.version.cuda, "device": torch.cuda.get_device_name(), "cuda_graphs": graphs,
        "io": "images and logits on the device",
    }  # fmt: skip
    return Ready(launch, torch.cuda.synchronize, _elapsed_ms, facts, _release)


def _release() -> None:
    torch.compiler.reset()
    torch.cuda.empty_cache()


def _elapsed_ms(work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    work()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def matmul_ceiling(precision: Half) -> Ceiling | None:
    """Return the best of ten timings of a product of two 8192 x 8192 matrices, after a warm-up as long as one timing.

    `None` if torch itself has no GPU, although another runtime may have one.
    """
    if not torch.cuda.is_available():
        return None
    left, right = (torch.randn(_SIDE, _SIDE, device="cuda", dtype=_DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(left)

    def work() -> None:
        for _ in range(_LAUNCHES):
            torch.matmul(left, right, out=out)

    work()
    best = min(_elapsed_ms(work) for _ in range(_WINDOWS)) / _LAUNCHES
    return Ceiling(precision=precision, side=_SIDE, tflops=2 * _SIDE**3 / (best * 1e9))
