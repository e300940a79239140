"""Between tensors and the NumPy arrays that `vitnla.linalg` computes on. On the CPU both share their memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_array(tensor: Tensor) -> NDArray[Any]:
    """The tensor on the CPU; types that NumPy lacks (bfloat16) become float64."""
    plain = tensor.detach().cpu()
    array: NDArray[Any] = (plain.double() if plain.dtype == torch.bfloat16 else plain).numpy()
    return array


def to_tensor(array: NDArray[Any], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The array on the device of `like`; in its own type, or in `dtype`."""
    # Reversed and transposed views have strides that torch does not know.
    return torch.from_numpy(np.ascontiguousarray(array)).to(device=like.device, dtype=dtype)
