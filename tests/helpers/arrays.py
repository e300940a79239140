"""The libraries and types that the algebra must work on alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@dataclass(frozen=True)
class Library:
    """Makes arrays of one library and type.

    Args:
        rounding: what its type loses of a number, as a share of it; of factors that come back in this type.
    """

    name: str
    dtype: Any
    rounding: float

    def __call__(self, values: NDArray[Any]) -> Any:
        """The values as an array of this kind."""
        return torch.tensor(np.asarray(values), dtype=self.dtype) if self.name == "torch" else np.array(values, self.dtype)

    def double(self, values: NDArray[Any]) -> Any:
        """The values in float64, as moments always are."""
        return torch.tensor(np.asarray(values), dtype=torch.float64) if self.name == "torch" else np.array(values, np.float64)

    def indices(self, values: NDArray[np.int64]) -> Any:
        """The values as int64 indices."""
        return torch.tensor(values) if self.name == "torch" else values

    def owns(self, array: object) -> bool:
        """Whether an array is of this library."""
        return isinstance(array, torch.Tensor if self.name == "torch" else np.ndarray)


LIBRARIES = {
    "numpy-float32": Library("numpy", np.float32, 1e-6), "numpy-float64": Library("numpy", np.float64, 1e-11),
    "torch-float32": Library("torch", torch.float32, 1e-6), "torch-float64": Library("torch", torch.float64, 1e-11),
}  # fmt: skip


def wide(array: Any) -> NDArray[np.float64]:
    """An array of either library as NumPy's float64."""
    return np.asarray(array).astype(np.float64)


def random(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    """Normal numbers, rounded to float32: all types hold the same."""
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32).astype(np.float64)


def gram(size: int, samples: int, seed: int = 1) -> NDArray[np.float64]:
    """E[x xT] of correlated samples whose mean is not zero; singular where samples < size."""
    x = random(samples, size, seed=seed) @ random(size, size, seed=seed + 1) + 2
    return x.T @ x / samples
