"""CUDA calls of a TensorRT session, through NVIDIA's `cuda-bindings`. They work without torch."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.runners.availability import Availability
from vitnla.common.errors import MissingDependencyError

_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NO_GPU = "use a machine with an NVIDIA GPU and its driver"


def has_driver() -> bool:
    """Return whether NVIDIA's driver library can be loaded."""
    try:
        ctypes.CDLL(_DRIVER)
    except OSError:
        return False
    return True


def cuda_availability() -> Availability:
    """Return whether a driver, the bindings and a GPU are present."""
    if not has_driver():
        return Availability(False, "it needs an NVIDIA GPU, and no NVIDIA driver was found", _NO_GPU)
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return Availability(False, "the package cuda-bindings is not installed", "pip install cuda-bindings")
    error, count = _cudart().cudaGetDeviceCount()
    if error != _cudart().cudaError_t.cudaSuccess or not count:
        return Availability(False, f"it needs an NVIDIA GPU, and CUDA found none ({error.name})", _NO_GPU)
    return Availability(True)


def compute_capability() -> tuple[int, int]:
    """Return (major, minor) of the first GPU."""
    attribute = _cudart().cudaDeviceAttr
    major = call(_cudart().cudaDeviceGetAttribute(attribute.cudaDevAttrComputeCapabilityMajor, 0))
    minor = call(_cudart().cudaDeviceGetAttribute(attribute.cudaDevAttrComputeCapabilityMinor, 0))
    return int(major), int(minor)


def gpu_name() -> str:
    """Return the product name of the first GPU."""
    name: bytes = call(_cudart().cudaGetDeviceProperties(0)).name
    return name.decode().rstrip("\0")


class Stream:
    """A CUDA stream with the device buffers that its work reads and writes."""

    def __init__(self) -> None:
        self.handle = int(call(_cudart().cudaStreamCreate()))
        self._buffers: list[int] = []

    def allocate(self, size: int) -> int:
        """Allocate `size` bytes of device memory and return the address."""
        address = int(call(_cudart().cudaMalloc(size)))
        self._buffers.append(address)
        return address

    def upload(self, source: NDArray[Any], address: int) -> None:
        """Enqueue a copy of a contiguous host array to the device."""
        kind = _cudart().cudaMemcpyKind.cudaMemcpyHostToDevice
        call(_cudart().cudaMemcpyAsync(address, source.ctypes.data, source.nbytes, kind, self.handle))

    def download(self, address: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Copy a float32 array back, and wait for all enqueued work."""
        host = np.empty(shape, np.float32)
        kind = _cudart().cudaMemcpyKind.cudaMemcpyDeviceToHost
        call(_cudart().cudaMemcpyAsync(host.ctypes.data, address, host.nbytes, kind, self.handle))
        self.synchronise()
        return host

    def synchronise(self) -> None:
        """Wait for all enqueued work."""
        call(_cudart().cudaStreamSynchronize(self.handle))

    def elapsed_ms(self, work: Callable[[], object]) -> float:
        """Return the milliseconds between two events on the stream, around the work that `work` enqueues."""
        start, end = (call(_cudart().cudaEventCreate()) for _ in range(2))
        try:
            call(_cudart().cudaEventRecord(start, self.handle))
            work()
            call(_cudart().cudaEventRecord(end, self.handle))
            call(_cudart().cudaEventSynchronize(end))
            return float(call(_cudart().cudaEventElapsedTime(start, end)))
        finally:
            for event in (start, end):
                call(_cudart().cudaEventDestroy(event))

    def close(self) -> None:
        """Free the buffers and the stream."""
        for address in self._buffers:
            call(_cudart().cudaFree(address))
        self._buffers.clear()
        call(_cudart().cudaStreamDestroy(self.handle))


def call(result: tuple[Any, ...]) -> Any:
    """Return the value of a `cuda-bindings` result, which is (error, value) or (error,).

    Raises:
        MissingDependencyError: the call failed, for example for want of device memory.
    """
    error, *values = result
    if error != _cudart().cudaError_t.cudaSuccess:
        raise MissingDependencyError(f"CUDA reports {error.name}", "see nvidia-smi for the GPU's state and free memory")
    return values[0] if values else None


def _cudart() -> Any:
    from cuda.bindings import runtime

    return runtime
